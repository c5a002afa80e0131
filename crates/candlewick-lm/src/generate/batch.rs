//! Which rows are computed together: prompts in pieces first, then one token of every sequence per step.

use super::step::Piece;
use super::{Completion, Finish, Generator, Output, Region, Request, Sampler, Statistics, Stops};
use crate::Result;
use candlewick_model::{TokenStream, Tokenizer};
use std::time::{Duration, Instant};

/// Rows of the plans for prompts. A prompt takes the plan that it fills well; a longer one is taken in pieces.
const ROWS: [usize; 7] = [8, 16, 32, 64, 128, 256, 512];

/// The most sequences whose prompts share a step.
const MOST_PROMPTS: usize = 8;

/// The rows of the plan for so many tokens: the smallest that holds them if they fill three quarters of it, otherwise the
/// largest that they fill.
pub(super) fn rows_for(tokens: usize) -> usize {
    let holds = ROWS.into_iter().find(|&rows| rows >= tokens && tokens * 4 >= rows * 3);
    let filled = ROWS.into_iter().rfind(|&rows| rows <= tokens);
    holds.or(filled).unwrap_or(ROWS[0])
}

/// One call of `generate`.
pub(super) struct Batch<'a> {
    generator: &'a mut Generator,
    tokenizer: &'a Tokenizer,
    requests: &'a [Request],
    /// The next request to begin.
    next: usize,
    active: Vec<Sequence<'a>>,
    completions: Vec<Option<Completion>>,
    statistics: Statistics,
    logits: Vec<f32>,
    start: Instant,
}

/// A text in the making.
struct Sequence<'a> {
    request: usize,
    region: usize,
    adapter: u32,
    /// Prompt and generated tokens.
    tokens: Vec<u32>,
    /// How many of them are in the cache.
    done: usize,
    sampler: Sampler,
    stream: TokenStream<'a>,
    stops: Stops,
    text: String,
    first_token: Duration,
}

impl<'a> Batch<'a> {
    pub(super) fn new(generator: &'a mut Generator, tokenizer: &'a Tokenizer, requests: &'a [Request]) -> Self {
        Batch {
            generator,
            tokenizer,
            requests,
            next: 0,
            active: Vec::new(),
            completions: vec![None; requests.len()],
            statistics: Statistics::default(),
            logits: Vec::new(),
            start: Instant::now(),
        }
    }

    pub(super) fn run(mut self, on_text: &mut dyn FnMut(usize, &str)) -> Result<Output> {
        loop {
            self.admit()?;
            if self.active.is_empty() {
                break;
            }
            let prompts: Vec<usize> = (0..self.active.len()).filter(|&nth| self.active[nth].pending() > 1).collect();
            if prompts.is_empty() {
                self.decode(on_text)?
            } else {
                self.prompts(&prompts, on_text)?
            }
            self.release();
        }
        let completions = self.completions.into_iter().flatten().collect();
        Ok(Output { completions, statistics: self.statistics })
    }

    /// Gives waiting requests the free regions, each the one that holds most of its prompt already.
    fn admit(&mut self) -> Result<()> {
        while let Some(request) = self.requests.get(self.next) {
            if request.max_tokens == 0 {
                let (text, tokens, first_token) = (String::new(), Vec::new(), self.start.elapsed());
                self.completions[self.next] = Some(Completion { text, tokens, finish: Finish::MaxTokens, first_token });
                self.next += 1;
                continue;
            }
            let key = self.generator.adapters.key(request.adapter);
            let regions = &mut self.generator.regions;
            // The last token is computed in any case: its logits are needed.
            let before_last = &request.prompt[..request.prompt.len() - 1];
            let common = |region: &Region| {
                let equal = region.tokens.iter().zip(before_last).take_while(|(a, b)| a == b).count();
                if region.adapter == key { equal } else { 0 }
            };
            let free = (0..regions.len()).filter(|&nth| !regions[nth].busy);
            let Some(region) = free.max_by_key(|&nth| (common(&regions[nth]), std::cmp::Reverse(nth))) else { break };
            let done = common(&regions[region]);
            regions[region] = Region { tokens: Vec::new(), adapter: key, busy: true };
            self.active.push(Sequence {
                request: self.next,
                region,
                adapter: self.generator.adapters.slot(request.adapter)?,
                tokens: request.prompt.clone(),
                done,
                sampler: Sampler::new(request.sampling)?,
                stream: self.tokenizer.stream(),
                stops: Stops::new(&request.stop),
                text: String::new(),
                first_token: Duration::ZERO,
            });
            self.next += 1;
        }
        Ok(())
    }

    /// One step over prompts: as many rows of the first of them as a plan has.
    fn prompts(&mut self, pending: &[usize], on_text: &mut dyn FnMut(usize, &str)) -> Result<()> {
        let sequences = self.generator.cache.sequences().min(MOST_PROMPTS);
        let pending = &pending[..pending.len().min(sequences)];
        let rows = rows_for(pending.iter().map(|&nth| self.active[nth].pending()).sum());
        let mut left = rows;
        let mut taken = Vec::new();
        for &nth in pending {
            let count = self.active[nth].pending().min(left);
            left -= count;
            taken.extend((count > 0).then_some((nth, count)));
        }
        let time = self.compute(rows, sequences, &taken)?;
        self.statistics.prompt_tokens += rows - left;
        self.statistics.prompt_time += time;
        self.choose(&taken, on_text)
    }

    /// One step over the last token of every sequence.
    fn decode(&mut self, on_text: &mut dyn FnMut(usize, &str)) -> Result<()> {
        let sequences = self.generator.cache.sequences();
        let taken: Vec<(usize, usize)> = (0..self.active.len()).map(|nth| (nth, 1)).collect();
        let time = self.compute(sequences, sequences, &taken)?;
        let start = Instant::now();
        self.choose(&taken, on_text)?;
        self.statistics.decoded_tokens += taken.len();
        self.statistics.decode_time += time + start.elapsed();
        Ok(())
    }

    /// Runs a step over the next rows of some sequences: how long it took, preparation apart.
    fn compute(&mut self, rows: usize, sequences: usize, taken: &[(usize, usize)]) -> Result<Duration> {
        let (start, before) = (Instant::now(), self.statistics.preparation);
        let piece = |&(nth, count): &(usize, usize)| {
            let sequence = &self.active[nth];
            let tokens = &sequence.tokens[sequence.done..sequence.done + count];
            Piece { region: sequence.region, first: sequence.done, tokens, adapter: sequence.adapter }
        };
        let pieces: Vec<Piece<'_>> = taken.iter().map(piece).collect();
        self.generator.step(rows, sequences, &pieces, &mut self.logits, &mut self.statistics.preparation)?;
        for &(nth, count) in taken {
            self.active[nth].done += count;
        }
        Ok(start.elapsed().saturating_sub(self.statistics.preparation - before))
    }

    /// Chooses the next token of every sequence whose tokens are all computed.
    fn choose(&mut self, taken: &[(usize, usize)], on_text: &mut dyn FnMut(usize, &str)) -> Result<()> {
        let vocab = self.generator.decoder.config().vocab;
        // Embeddings may have more rows than there are tokens.
        let known = self.tokenizer.vocab().min(vocab);
        for (&(nth, _), logits) in taken.iter().zip(self.logits.chunks_exact(vocab)) {
            let sequence = &mut self.active[nth];
            if sequence.pending() > 0 {
                continue;
            }
            let request = &self.requests[sequence.request];
            let token = sequence.sampler.next(&logits[..known], &sequence.tokens)?;
            if sequence.tokens.len() == request.prompt.len() {
                sequence.first_token = self.start.elapsed();
            }
            let capacity = self.generator.cache.capacity();
            if let Some(finish) = sequence.push(token, request, self.tokenizer, capacity, on_text)? {
                let completion = sequence.complete(finish, request, self.tokenizer, on_text)?;
                self.completions[sequence.request] = Some(completion);
            }
        }
        Ok(())
    }

    /// Frees the regions of texts that have ended.
    fn release(&mut self) {
        let (completions, regions) = (&self.completions, &mut self.generator.regions);
        self.active.retain_mut(|sequence| {
            let goes_on = completions[sequence.request].is_none();
            if !goes_on {
                let region = &mut regions[sequence.region];
                sequence.tokens.truncate(sequence.done);
                (region.tokens, region.busy) = (std::mem::take(&mut sequence.tokens), false);
            }
            goes_on
        });
    }
}

impl<'a> Sequence<'a> {
    /// Tokens that are not in the cache.
    fn pending(&self) -> usize {
        self.tokens.len() - self.done
    }

    /// Takes a token in; why the text ends with it, if it does.
    fn push(
        &mut self,
        token: u32,
        request: &Request,
        tokenizer: &Tokenizer,
        capacity: usize,
        on_text: &mut dyn FnMut(usize, &str),
    ) -> Result<Option<Finish>> {
        if !request.ignore_end && tokenizer.stops().contains(&token) {
            return Ok(Some(Finish::End));
        }
        self.tokens.push(token);
        let piece = self.stream.push(token)?;
        if self.show(&piece, on_text) {
            return Ok(Some(Finish::StopString));
        }
        if self.tokens.len() - request.prompt.len() == request.max_tokens {
            return Ok(Some(Finish::MaxTokens));
        }
        Ok((self.tokens.len() > capacity).then_some(Finish::Context))
    }

    /// Shows text, but for what may become a stop string; whether one has appeared.
    fn show(&mut self, text: &str, on_text: &mut dyn FnMut(usize, &str)) -> bool {
        let (text, stopped) = self.stops.push(text);
        self.append(&text, on_text);
        stopped
    }

    fn append(&mut self, text: &str, on_text: &mut dyn FnMut(usize, &str)) {
        if !text.is_empty() {
            on_text(self.request, text);
            self.text += text;
        }
    }

    /// Shows what was held back.
    fn complete(
        &mut self,
        finish: Finish,
        request: &Request,
        tokenizer: &'a Tokenizer,
        on_text: &mut dyn FnMut(usize, &str),
    ) -> Result<Completion> {
        let mut finish = finish;
        if finish != Finish::StopString {
            let rest = std::mem::replace(&mut self.stream, tokenizer.stream()).finish()?;
            if self.show(&rest, on_text) {
                finish = Finish::StopString;
            } else {
                let held = self.stops.finish();
                self.append(&held, on_text);
            }
        }
        let (text, tokens) = (std::mem::take(&mut self.text), self.tokens[request.prompt.len()..].to_vec());
        Ok(Completion { text, tokens, finish, first_token: self.first_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_fill_their_plans() {
        let pieces = |mut tokens: usize| {
            let mut pieces = Vec::new();
            while tokens > 0 {
                pieces.push(rows_for(tokens));
                tokens -= tokens.min(rows_for(tokens));
            }
            pieces
        };
        assert_eq!(pieces(1), [8]);
        assert_eq!(pieces(12), [16]);
        assert_eq!(pieces(100), [128]);
        assert_eq!(pieces(300), [256, 32, 16]);
        assert_eq!(pieces(512), [512]);
        assert_eq!(pieces(1200), [512, 512, 128, 64]);
    }
}
