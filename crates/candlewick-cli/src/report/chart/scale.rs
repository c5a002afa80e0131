//! A logarithmic axis.

/// Maps values to pixels.
#[derive(Clone, Copy, Debug)]
pub struct LogScale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl LogScale {
    /// Covers every value with a little room, from pixel `from` to pixel `to`. None without positive values.
    pub fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let logs: Vec<f64> = values.filter(|value| *value > 0.0 && value.is_finite()).map(f64::log10).collect();
        let low = logs.iter().copied().min_by(f64::total_cmp)?;
        let high = logs.iter().copied().max_by(f64::total_cmp)?;
        let room = ((high - low) * 0.06).max(0.1);
        Some(LogScale { low: low - room, high: high + room, from, to })
    }

    /// The pixel of a value.
    pub fn at(&self, value: f64) -> f64 {
        self.from + (value.log10() - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    /// Powers of ten; with 2 and 5 between them where they would be too few.
    pub fn ticks(&self) -> Vec<f64> {
        let of = |mantissas: &[f64]| -> Vec<f64> {
            let decades = self.low.floor() as i32..=self.high.ceil() as i32;
            decades
                .flat_map(|decade| mantissas.iter().map(move |mantissa| mantissa * 10f64.powi(decade)))
                .filter(|tick| (self.low..=self.high).contains(&tick.log10()))
                .collect()
        };
        let decades = of(&[1.0]);
        if decades.len() >= 3 { decades } else { of(&[1.0, 2.0, 5.0]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_decades_or_their_1_2_5() {
        let ticks = |values: &[f64]| LogScale::around(values.iter().copied(), 0.0, 100.0).unwrap().ticks();
        assert_eq!(ticks(&[0.9, 11000.0]), [1.0, 10.0, 100.0, 1000.0, 10000.0]);
        assert_eq!(ticks(&[1.5, 30.0]), [2.0, 5.0, 10.0, 20.0]);
        assert!(!ticks(&[4.0]).is_empty() || ticks(&[4.0, 6.0]) == [5.0]);
        assert!(LogScale::around([0.0, f64::INFINITY].into_iter(), 0.0, 1.0).is_none());
    }

    #[test]
    fn values_map_to_pixels_in_either_direction() {
        let down = LogScale::around([1.0, 100.0].into_iter(), 200.0, 0.0).unwrap();
        assert!((down.at(10.0) - 100.0).abs() < 1e-9);
        assert!(down.at(100.0) < down.at(1.0));
    }
}
