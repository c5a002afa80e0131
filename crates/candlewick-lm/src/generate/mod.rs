//! Text from a model: sampling, stopping, adapters, batches.
//!
//! ```no_run
//! use candlewick::Device;
//! use candlewick_lm::generate::{Generator, Options, Request};
//!
//! let mut generator = Generator::open("model.gguf".as_ref(), &Device::cpu(), Options::default())?;
//! let prompt = generator.tokenizer().encode("The sea is", true)?;
//! let output = generator.generate(&[Request::new(prompt)], &mut |_, text| print!("{text}"))?;
//! println!("\n{:.0} tokens/s", output.statistics.decode_rate().unwrap_or(0.0));
//! # Ok::<(), candlewick_lm::Error>(())
//! ```
//!
//! | looking for | it is in |
//! |---|---|
//! | what is asked for, and what comes of it | `request.rs` |
//! | which rows are computed together | `batch.rs` |
//! | the plan of a step | `step.rs` |
//! | adapters beside the base | `adapters.rs` |
//! | the choice of a token | `sampler.rs` |
//! | stop strings | `stops.rs` |

mod adapters;
mod batch;
mod request;
mod sampler;
mod step;
mod stops;

pub use adapters::AdapterId;
pub use request::{Completion, Finish, Request, Statistics};
pub use sampler::{Sampler, Sampling};
pub use stops::Stops;

use crate::decoder::{self, Cache, Decoder};
use crate::{Error, Result};
use adapters::Adapters;
use candlewick::Device;
use candlewick_model::{Adapter, Source, Tokenizer, Weights};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use step::Step;

/// How text is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How the model is brought to the device.
    pub decoder: decoder::Options,
    /// How many sequences are generated at a time; more requests wait for their turn.
    pub sequences: usize,
    /// The most tokens of a sequence, prompt included; nothing for the model's own context, at most
    /// [`Options::DEFAULT_CONTEXT`].
    pub context: Option<usize>,
}

impl Options {
    /// What the cache has room for where nothing else is asked for.
    pub const DEFAULT_CONTEXT: usize = 4096;
}

impl Default for Options {
    fn default() -> Self {
        Options { decoder: decoder::Options::default(), sequences: 1, context: None }
    }
}

/// A model that generates text: its weights, a cache for several sequences, the plans of its steps, adapters beside it.
pub struct Generator {
    decoder: Decoder,
    tokenizer: Arc<Tokenizer>,
    cache: Cache,
    regions: Vec<Region>,
    adapters: Adapters,
    /// By rows and sequences.
    steps: BTreeMap<(usize, usize), Step>,
}

/// What a sequence's part of the cache holds: a prompt that begins alike is not computed again.
#[derive(Clone, Debug, Default)]
struct Region {
    tokens: Vec<u32>,
    /// What else the numbers depend on.
    adapter: Option<(u64, u64)>,
    busy: bool,
}

/// What comes of a call of [`Generator::generate`].
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// One per request, in their order.
    pub completions: Vec<Completion>,
    /// What it took.
    pub statistics: Statistics,
}

impl Generator {
    /// Opens a model, with the tokenizer beside it, on a device.
    ///
    /// # Errors
    /// Files that are damaged or not supported, memory that is not there.
    pub fn open(path: &Path, device: &Device, options: Options) -> Result<Generator> {
        let weights = Weights::open(path)?;
        let tokenizer = match weights.source() {
            Source::Gguf(file) => Tokenizer::from_gguf(file)?,
            Source::Folder(_) => Tokenizer::open(path)?,
        };
        tokenizer.check(weights.config())?;
        let decoder = Decoder::load(device, Arc::new(weights), options.decoder)?;
        Generator::new(decoder, tokenizer, options)
    }

    /// With a decoder that is there already.
    ///
    /// # Errors
    /// A context that the model does not have, memory that is not there.
    pub fn new(decoder: Decoder, tokenizer: Tokenizer, options: Options) -> Result<Generator> {
        let most = decoder.config().context;
        let context = options.context.unwrap_or(most.min(Options::DEFAULT_CONTEXT));
        if context == 0 || context > most {
            let problem = format!("{context} tokens, and the model was made for 1 to {most}");
            return Err(Error::refused("context", problem, "choose one that the model has"));
        }
        if options.sequences == 0 {
            return Err(Error::refused("sequences", "0 generate nothing", "1 or more are generated at a time"));
        }
        let cache = Cache::new(&decoder, options.sequences, context)?;
        let regions = vec![Region::default(); options.sequences];
        let (tokenizer, adapters, steps) = (Arc::new(tokenizer), Adapters::new(), BTreeMap::new());
        Ok(Generator { decoder, tokenizer, cache, regions, adapters, steps })
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The model on its device.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The most tokens of a sequence, prompt included.
    pub fn context(&self) -> usize {
        self.cache.capacity()
    }

    /// Brings an adapter to the device, beside the others; `strength` multiplies its own scale, and 0 turns it off. The
    /// base stays as it is. Plans are recorded anew where no adapter before it had such a module or so high a rank.
    ///
    /// # Errors
    /// An adapter for another model; memory that is not there.
    pub fn load_adapter(&mut self, adapter: &Adapter, strength: f64) -> Result<AdapterId> {
        let (id, changed) = self.adapters.load(&self.decoder, adapter, strength)?;
        if changed {
            self.steps.clear();
        }
        Ok(id)
    }

    /// Makes an adapter's place free for another one.
    ///
    /// # Errors
    /// An adapter that was unloaded.
    pub fn unload_adapter(&mut self, id: AdapterId) -> Result<()> {
        self.adapters.unload(id)
    }

    /// Scales an adapter anew: 1 as it was trained, 0 off.
    ///
    /// # Errors
    /// An adapter that was unloaded.
    pub fn set_adapter_strength(&mut self, id: AdapterId, strength: f64) -> Result<()> {
        self.adapters.set_strength(&self.decoder, id, strength)
    }

    /// The adapter's name: its folder's.
    ///
    /// # Errors
    /// An adapter that was unloaded.
    pub fn adapter_name(&self, id: AdapterId) -> Result<&str> {
        self.adapters.name(id)
    }

    /// Generates a text for each request, as many at a time as the options say, and hands on text as it comes: the number of
    /// the request, and what is new of its text.
    ///
    /// # Errors
    /// A prompt without tokens, one that is longer than the context, a token that the model does not have, numbers that make
    /// no distribution; before anything is computed. What fails on the device.
    pub fn generate(&mut self, requests: &[Request], on_text: &mut dyn FnMut(usize, &str)) -> Result<Output> {
        for (nth, request) in requests.iter().enumerate() {
            self.check(&format!("prompt {}", nth + 1), &request.prompt)?;
            request.sampling.check()?;
            self.adapters.slot(request.adapter)?;
        }
        let tokenizer = self.tokenizer.clone();
        let run = batch::Batch::new(self, &tokenizer, requests).run(on_text);
        self.regions.iter_mut().for_each(|region| region.busy = false);
        run
    }

    /// The logits of the token that follows a prompt, one for each of the vocabulary.
    ///
    /// # Errors
    /// As [`Generator::generate`].
    pub fn logits(&mut self, prompt: &[u32], adapter: Option<AdapterId>) -> Result<Vec<f32>> {
        self.check("prompt", prompt)?;
        let (mut logits, mut done, slot) = (Vec::new(), 0, self.adapters.slot(adapter)?);
        let mut preparation = Duration::ZERO;
        self.regions[0] = Region::default();
        while done < prompt.len() {
            let rows = batch::rows_for(prompt.len() - done);
            let tokens = &prompt[done..prompt.len().min(done + rows)];
            let piece = step::Piece { region: 0, first: done, tokens, adapter: slot };
            self.step(rows, 1, &[piece], &mut logits, &mut preparation)?;
            done += tokens.len();
        }
        logits.truncate(self.decoder.config().vocab);
        Ok(logits)
    }

    fn check(&self, what: &str, prompt: &[u32]) -> Result<()> {
        let (config, capacity) = (self.decoder.config(), self.cache.capacity());
        if prompt.is_empty() {
            return Err(Error::refused(what, "it has no tokens", "give a text: a model continues what is there"));
        }
        if prompt.len() > capacity {
            let problem = format!("it has {} tokens, and the context is {capacity}", prompt.len());
            let remedy = match config.context {
                most if most > capacity => format!("shorten it, or ask for a longer context: this model has {most}"),
                most => format!("shorten it: this model has a context of {most}"),
            };
            return Err(Error::refused(what, problem, remedy));
        }
        if let Some(token) = prompt.iter().find(|&&token| token as usize >= config.vocab) {
            let problem = format!("token {token} is none of the model's {}", config.vocab);
            return Err(Error::refused(what, problem, "use the tokenizer of this very model"));
        }
        Ok(())
    }

    /// Runs one step, recorded at first use.
    fn step(
        &mut self,
        rows: usize,
        sequences: usize,
        pieces: &[step::Piece<'_>],
        logits: &mut Vec<f32>,
        preparation: &mut Duration,
    ) -> Result<()> {
        let Generator { decoder, cache, adapters, steps, .. } = self;
        let step = match steps.entry((rows, sequences)) {
            Entry::Occupied(step) => step.into_mut(),
            Entry::Vacant(place) => {
                let start = Instant::now();
                let step = Step::new(decoder, cache, adapters, rows, sequences)?;
                *preparation += start.elapsed();
                place.insert(step)
            }
        };
        step.run(cache, pieces, adapters.none(), logits)
    }
}
