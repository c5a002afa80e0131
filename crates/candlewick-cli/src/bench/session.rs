//! One run of `bench`: the machine, the settings, the results.

use super::contenders::{Contender, Maker};
use super::rounds::Measured;
use super::rows::{self, Row};
use super::timing::Regime;
use crate::peers::Hello;
use candlewick::{DType, DeviceInfo, Limits};

/// Everything that a report shows.
pub struct Session {
    /// What was measured on.
    pub device: DeviceInfo,
    /// The rates that nothing here exceeds: with all threads, then with one where that differs.
    pub limits: Vec<Limits>,
    /// Who was measured beside Candlewick, and how it was set.
    pub settings: Vec<Setting>,
    /// What the device has.
    pub regimes: Vec<Regime>,
    /// When it began, in UTC.
    pub date: String,
    /// Per case.
    pub results: Vec<Measured>,
    /// What went wrong.
    pub warnings: Vec<String>,
}

/// A peer and how it was set.
pub struct Setting {
    /// Whose.
    pub maker: Maker,
    /// Whether it was told to use one thread.
    pub one_thread: bool,
    /// What it said of itself.
    pub hello: Hello,
}

impl Setting {
    /// Of a peer; none of Candlewick itself.
    pub fn of(contender: &Contender) -> Option<Self> {
        let hello = contender.hello.clone()?;
        Some(Setting { maker: contender.maker, one_thread: contender.one_thread, hello })
    }
}

impl Session {
    /// Before the first case.
    pub fn new(device: DeviceInfo, limits: Vec<Limits>, settings: Vec<Setting>, warnings: Vec<String>) -> Self {
        for warning in &warnings {
            eprintln!("warning: {warning}");
        }
        let mut regimes = vec![Regime::Latency, Regime::Pipelined];
        if device.asynchronous {
            regimes.push(Regime::Enqueue);
        }
        regimes.push(Regime::Replay);
        let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        Session { device, limits, settings, regimes, date, results: Vec::new(), warnings }
    }

    /// The results as flat rows.
    pub fn rows(&self) -> Vec<Row> {
        self.results.iter().flat_map(|measured| rows::rows(measured, &self.device.id, &self.limits)).collect()
    }

    /// Microseconds that Candle as it comes spends before every product, asking how many threads there are.
    pub fn thread_lookup(&self) -> Option<f64> {
        let candle = self.settings.iter().find(|setting| setting.maker == Maker::Candle && !setting.one_thread)?;
        candle.hello.thread_lookup_us
    }

    /// The header of every report: name and value.
    pub fn facts(&self) -> Vec<(String, String)> {
        let mut facts = vec![("machine".to_owned(), self.device.name.clone())];
        facts.extend(self.device.facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        facts.push(("date".into(), self.date.clone()));
        facts.push(("Candlewick".into(), format!("{}, {}", env!("CARGO_PKG_VERSION"), built())));
        for setting in &self.settings {
            let Setting { maker, one_thread, hello } = setting;
            let thread_setting = match (maker, one_thread) {
                (Maker::Candle, true) => "RAYON_NUM_THREADS=1",
                (Maker::PyTorch, true) => "torch.set_num_threads(1)",
                _ => "as it comes",
            };
            let name = if *one_thread { format!("{}, one thread", maker.name()) } else { maker.name().to_owned() };
            let threads = if hello.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", hello.threads) };
            facts.push((name, format!("{}, {}, {threads} ({thread_setting})", hello.version, hello.built)));
        }
        for limits in self.limits.iter().filter(|limits| !limits.bandwidth.is_empty()) {
            let threads =
                if limits.threads == 1 { "1 thread".to_owned() } else { format!("{} threads", limits.threads) };
            facts.push((format!("limit, {threads}"), limits_in_words(limits)));
        }
        facts
    }
}

fn built() -> &'static str {
    if cfg!(debug_assertions) {
        "a debug build: build with --release for figures that mean something"
    } else {
        "release"
    }
}

fn limits_in_words(limits: &Limits) -> String {
    // Rates of dtypes that do not differ are said once.
    let mut rates: Vec<(f64, Vec<DType>)> = Vec::new();
    for &(dtype, rate) in &limits.flops {
        match rates.iter_mut().find(|(known, _)| *known == rate) {
            Some((_, dtypes)) => dtypes.push(dtype),
            None => rates.push((rate, vec![dtype])),
        }
    }
    let rates = rates.iter().map(|(rate, dtypes)| {
        let names: Vec<&str> = dtypes.iter().map(|dtype| dtype.name()).collect();
        format!("{:.0} GFLOP/s {}", rate / 1e9, names.join(" and "))
    });
    let sizes = limits.bandwidth.iter().map(|&(size, rate)| {
        let size = if size < (1 << 20) as f64 {
            format!("{:.0} KiB", size / 1024.0)
        } else {
            format!("{:.0} MiB", size / (1 << 20) as f64)
        };
        format!("{:.0} GB/s in {size}", rate / 1e9)
    });
    let wake = (limits.threads > 1).then(|| format!("waking the threads {:.1} µs", limits.wake * 1e6));
    rates.chain(sizes).chain(wake).collect::<Vec<_>>().join(", ")
}
