//! Profiles of chips that were measured by those who make Candlewick: every file in `built_in/`. Chips that are not there have
//! the backends' own order: on Apple's that is what Apple documents, as none was measured.
//!
//! Another one is added, where its chip is, by one command in the repository's root; the file's name is what users read:
//!
//! ```sh
//! candlewick tune --device cuda --save crates/candlewick/src/profile/built_in/nvidia-h100.json
//! ```

use super::{Machine, Profile, file};

/// Names and files, as `candlewick tune` wrote them.
const PROFILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// One of the same chip and the same instruction sets, with its name; drivers may differ.
pub(super) fn of(machine: &Machine) -> Option<(Profile, &'static str)> {
    // Most files are of other chips: what does not name this one need not be read.
    let of_this_name = PROFILES.iter().filter(|(_, text)| text.contains(&machine.name));
    let all = of_this_name.filter_map(|&(name, text)| Some((file::parse(text).ok()?, name)));
    all.into_iter().find(|(profile, _)| {
        let of = &profile.machine;
        let kind = |device: &str| device.split(':').next().map(str::to_owned);
        let same = |fact: &str| of.facts.get(fact) == machine.facts.get(fact);
        of.name == machine.name
            && kind(&of.device) == kind(&machine.device)
            && same("instruction sets")
            && same("cores")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::OpClass;

    #[test]
    fn every_built_in_profile_is_whole_and_is_found() {
        for &(name, text) in PROFILES {
            let profile = file::parse(text).unwrap_or_else(|how| panic!("{name}: {how}"));
            assert!(!profile.rows.is_empty(), "{name}");
            let known = |op: &str| OpClass::ALL.iter().any(|class| class.name() == op);
            let unknown = profile.rows.iter().find(|row| !known(&row.op));
            assert!(unknown.is_none(), "{name}: {unknown:?}");
            assert_eq!(of(&profile.machine), Some((profile, name)));
            // Its digest holds: a number that is changed by hand is found.
            let forged = text.replacen("\"microseconds\":1", "\"microseconds\":2", 1);
            assert!(forged != text && file::parse(&forged).is_err(), "{name}");
        }
    }

    #[test]
    fn another_chip_has_none() {
        let Some(&(_, text)) = PROFILES.first() else { return };
        let machine = file::parse(text).unwrap().machine;
        assert_eq!(of(&Machine { name: "Another".into(), ..machine.clone() }), None);
        let mut fewer = machine;
        fewer.facts.insert("cores".into(), "0".into());
        assert_eq!(of(&fewer), None);
    }
}
