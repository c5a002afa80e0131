//! Numbers as people read them.

/// Three digits, without decimals that nobody needs: `0.142`, `4.21`, `30.1`, `1057`.
pub fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size < 0.9995 => 3,
        size if size < 9.995 => 2,
        size if size < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Microseconds with the unit that keeps the number short: `4.21 µs`, `28.8 ms`.
pub fn time(micros: f64) -> String {
    match micros {
        micros if micros < 1.0 => format!("{:.0} ns", micros * 1e3),
        micros if micros < 1e3 => format!("{} µs", three_digits(micros)),
        micros if micros < 1e6 => format!("{} ms", three_digits(micros / 1e3)),
        micros => format!("{} s", three_digits(micros / 1e6)),
    }
}

/// `41%`, and `0.3%` where a whole number would say nothing.
pub fn percent(share: f64) -> String {
    if share < 0.0095 { format!("{:.1}%", share * 100.0) } else { format!("{:.0}%", share * 100.0) }
}

/// `12.9x`.
pub fn ratio(ratio: f64) -> String {
    if ratio < 9.95 { format!("{ratio:.2}x") } else { format!("{ratio:.1}x") }
}

/// Of floating-point operations: `524 kFLOP`, `2.15 GFLOP`.
pub fn arithmetic(flops: f64) -> String {
    let (unit, size) = match flops {
        flops if flops < 1e6 => ("kFLOP", 1e3),
        flops if flops < 1e9 => ("MFLOP", 1e6),
        _ => ("GFLOP", 1e9),
    };
    format!("{} {unit}", three_digits(flops / size))
}

/// Of memory: `128 KiB`, `64.0 MiB`.
pub fn data(bytes: f64) -> String {
    let (unit, size) = if bytes < (1 << 20) as f64 { ("KiB", 1024.0) } else { ("MiB", (1 << 20) as f64) };
    format!("{} {unit}", three_digits(bytes / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_have_units() {
        let written: Vec<String> = [0.0424, 0.9994, 4.206, 30.05, 99.96, 1057.4].map(three_digits).into();
        assert_eq!(written, ["0.042", "0.999", "4.21", "30.1", "100", "1057"]);
        assert_eq!([0.0424, 4.206, 28763.0, 2e6].map(time), ["42 ns", "4.21 µs", "28.8 ms", "2.00 s"]);
        assert_eq!([0.003, 0.41, 1.02].map(percent), ["0.3%", "41%", "102%"]);
        assert_eq!([0.5, 9.96, 1.234].map(ratio), ["0.50x", "10.0x", "1.23x"]);
        assert_eq!(arithmetic(2.0 * 64f64.powi(3)), "524 kFLOP");
        assert_eq!(data(65536.0 * 1024.0), "64.0 MiB");
    }
}
