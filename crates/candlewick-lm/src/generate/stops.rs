//! Stop strings: where one appears the text ends, and nothing of it is shown, however tokens cut it.

/// Passes text on as it comes, except for what may become a stop string.
#[derive(Clone, Debug, Default)]
pub struct Stops {
    stops: Vec<String>,
    held: String,
}

impl Stops {
    /// Empty stop strings stop nothing.
    pub fn new(stops: &[String]) -> Stops {
        Stops { stops: stops.iter().filter(|stop| !stop.is_empty()).cloned().collect(), held: String::new() }
    }

    /// What can be shown now, and whether a stop string has ended the text.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held += text;
        if let Some(end) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.held.truncate(end);
            return (std::mem::take(&mut self.held), true);
        }
        let begun = self.held.char_indices().map(|(at, _)| at);
        let begun = begun.into_iter().find(|&at| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..])));
        let rest = self.held.split_off(begun.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back, at the end of the text.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut filter = Stops::new(&stops.iter().map(|&stop| stop.to_owned()).collect::<Vec<_>>());
        let mut shown = Vec::new();
        for piece in pieces {
            let (text, stopped) = filter.push(piece);
            shown.push(text);
            if stopped {
                return (shown, true);
            }
        }
        shown.push(filter.finish());
        (shown, false)
    }

    #[test]
    fn a_stop_string_over_several_tokens_is_never_shown() {
        assert_eq!(shown(&["\n\nUser:"], &["Hello.", "\n", "\nUs", "er: hi"]).0.concat(), "Hello.");
        assert!(shown(&["\n\nUser:"], &["Hello.", "\n", "\nUs", "er: hi"]).1);
        // Held back while it may become one, and shown when it does not.
        let (pieces, stopped) = shown(&["END"], &["the E", "N", "ERGY"]);
        assert_eq!((pieces, stopped), (vec!["the ".into(), "".into(), "ENERGY".into(), "".into()], false));
        assert_eq!(shown(&["END"], &["the EN"]), (vec!["the ".into(), "EN".into()], false));
    }

    #[test]
    fn the_first_of_several_ends_the_text() {
        assert_eq!(shown(&["stop", "top", ""], &["a stop"]), (vec!["a ".into()], true));
        assert_eq!(shown(&["aab"], &["aa", "ab"]), (vec!["".into(), "a".into()], true));
        assert_eq!(shown(&["é!"], &["caf\u{e9}", "?"]).0.concat(), "café?");
        assert_eq!(shown(&[], &["a", "b"]), (vec!["a".into(), "b".into(), "".into()], false));
    }
}
