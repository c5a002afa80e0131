//! An adapter on the command line: its folder, and how much of it.

use std::path::PathBuf;
use std::str::FromStr;

/// `FOLDER`, `FOLDER=STRENGTH`, or `none`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFlag {
    /// Its folder; nothing for the base alone.
    pub folder: Option<PathBuf>,
    /// What its own scale is multiplied by.
    pub strength: f64,
}

impl FromStr for AdapterFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(AdapterFlag { folder: None, strength: 0.0 });
        }
        // A folder's name may have an equals sign.
        if PathBuf::from(text).is_dir() {
            return Ok(AdapterFlag { folder: Some(text.into()), strength: 1.0 });
        }
        let Some((folder, strength)) = text.rsplit_once('=') else {
            return Err(
                "there is no such folder: an adapter is a folder with its weights and adapter_config.json".into()
            );
        };
        match strength.parse() {
            Ok(strength) if f64::is_finite(strength) => Ok(AdapterFlag { folder: Some(folder.into()), strength }),
            _ => Err(format!("{strength:?} is no strength: 1 as it was trained, 0.5 half of it, 0 off")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_strengths() {
        let parsed = |text: &str| text.parse::<AdapterFlag>();
        assert_eq!(parsed("none").unwrap().folder, None);
        assert_eq!(parsed("src").unwrap(), AdapterFlag { folder: Some("src".into()), strength: 1.0 });
        assert_eq!(parsed("a=b=-0.5").unwrap(), AdapterFlag { folder: Some("a=b".into()), strength: -0.5 });
        assert!(parsed("nowhere").unwrap_err().contains("no such folder"));
        assert!(parsed("src=much").unwrap_err().contains("1 as it was trained"));
        assert!(parsed("src=inf").is_err());
    }
}
