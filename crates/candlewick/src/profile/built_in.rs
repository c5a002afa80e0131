//! Profiles of chips that were measured by those who make Candlewick. Chips that are not here have the backends' own order:
//! on Apple's that is what Apple documents, as none was measured.

use super::{Machine, Profile};

/// As `candlewick tune` wrote them.
const PROFILES: [&str; 0] = [];

/// One of the same chip and the same instruction sets; drivers may differ.
pub(super) fn of(machine: &Machine) -> Option<Profile> {
    let all = PROFILES.iter().filter_map(|text| super::file::parse(text).ok());
    all.into_iter().find(|profile| {
        let of = &profile.machine;
        let same = |fact: &str| of.facts.get(fact) == machine.facts.get(fact);
        of.name == machine.name && same("instruction sets") && same("cores")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_can_be_read() {
        for text in PROFILES {
            let profile = super::super::file::parse(text).unwrap();
            assert!(!profile.rows.is_empty());
            assert_eq!(of(&profile.machine), Some(profile));
        }
    }
}
