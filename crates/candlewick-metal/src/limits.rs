//! When a command buffer is full.

/// A command buffer is committed once it holds so much.
///
/// A boundary costs the GPU some 20 us; a buffer that is filled for long keeps the GPU waiting at the start. MLX 0.32
/// commits after 40 to 50 operations or megabytes by class of chip; here it starts from those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitLimits {
    /// Operations.
    pub operations: usize,
    /// Bytes that they read and write at the least.
    pub bytes: usize,
}

impl CommitLimits {
    /// For a GPU, by the name of its architecture (`applegpu_g13s`; macOS 14 and later) or its own (`Apple M1 Max`).
    pub(crate) fn of_chip(name: &str) -> Self {
        let large = name.contains("Max") || name.contains("Ultra") || name.ends_with('s') || name.ends_with('d');
        CommitLimits { operations: 50, bytes: if large { 512 << 20 } else { 256 << 20 } }
    }
}

/// How many cores a GPU has, at least: what decides how finely work is cut. Metal does not say.
pub(crate) fn cores_of_chip(name: &str) -> u32 {
    // The smallest of each class since M1 (Apple's technical specifications).
    let classes = [("Ultra", 48), ("Max", 24), ("Pro", 14)];
    let by_name = classes.iter().find(|(class, _)| name.contains(class)).map(|&(_, cores)| cores);
    let by_letter = match name.strip_prefix("applegpu_").and_then(|name| name.chars().last()) {
        Some('d') => 48,
        Some('c' | 's') => 14,
        _ => 8,
    };
    by_name.unwrap_or(by_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_chips_have_more_cores() {
        let names = ["Apple M1", "Apple M3 Pro", "Apple M1 Max", "Apple M2 Ultra"];
        assert_eq!(names.map(cores_of_chip), [8, 14, 24, 48]);
        assert_eq!(["applegpu_g13g", "applegpu_g14s", "applegpu_g13d"].map(cores_of_chip), [8, 14, 48]);
        assert!(names.iter().all(|name| CommitLimits::of_chip(name).operations == 50));
    }
}
