//! Text of small random models: batches, pieces, adapters, stops, refusals.

mod definition;

use candlewick::{DType, Device};
use candlewick_lm::decoder;
use candlewick_lm::generate::{Finish, Generator, Options, Request, Sampling};
use candlewick_model::testing::{TinyModel, tiny_config};
use candlewick_model::{Adapter, Family, Format, Linear, Module, Tensor};
use std::path::PathBuf;
use tempfile::TempDir;

/// A model in a folder that lives as long as this.
struct Files {
    model: TinyModel,
    folder: TempDir,
}

impl Files {
    fn new(family: Family) -> Files {
        let files = Files {
            model: TinyModel::new(tiny_config(family), Format::Float(DType::F32), 3),
            folder: tempfile::tempdir().unwrap(),
        };
        files.model.write_folder(&files.folder.path().join("hf"), DType::F32, 1);
        std::fs::write(files.gguf(), files.model.gguf()).unwrap();
        files
    }

    fn gguf(&self) -> PathBuf {
        self.folder.path().join("tiny.gguf")
    }

    fn open(&self, sequences: usize) -> Generator {
        self.open_with(Options { sequences, ..Options::default() })
    }

    fn open_with(&self, options: Options) -> Generator {
        Generator::open(&self.folder.path().join("hf"), &Device::cpu(), options).unwrap()
    }

    fn adapter(&self, name: &str, rank: usize, seed: u64, keep: impl Fn(&Module) -> bool) -> Adapter {
        let mut modules = self.model.adapter_modules(rank, DType::F32, seed);
        modules.retain(|module, _| keep(module));
        Adapter::new(name, None, modules).unwrap()
    }
}

fn prompt(length: usize, seed: usize) -> Vec<u32> {
    (0..length).map(|i| ((i * 37 + seed * 101 + 7) % 300) as u32).collect()
}

/// Goes on behind the tokens that end a text, which random models like as much as others.
fn request(prompt: Vec<u32>, max_tokens: usize) -> Request {
    Request { max_tokens, ignore_end: true, ..Request::new(prompt) }
}

fn tokens(generator: &mut Generator, requests: &[Request]) -> Vec<Vec<u32>> {
    let output = generator.generate(requests, &mut |_, _| ()).unwrap();
    output.completions.into_iter().map(|completion| completion.tokens).collect()
}

/// Greedy tokens by the definition, and how far ahead the likeliest was each time, relative to the largest logit.
fn defined(files: &Files, prompt: &[u32], count: usize, adapters: &[(&definition::Adapter, f64)]) -> (Vec<u32>, f64) {
    let (mut tokens, mut margin) = (prompt.to_vec(), f64::INFINITY);
    for _ in 0..count {
        let logits = definition::logits(&files.model, &tokens, adapters);
        let last = &logits[logits.len() - files.model.config.vocab..];
        let mut order: Vec<usize> = (0..last.len()).collect();
        order.sort_by(|&a, &b| last[b].total_cmp(&last[a]));
        margin = margin.min((last[order[0]] - last[order[1]]) / last[order[0]].abs());
        tokens.push(order[0] as u32);
    }
    (tokens[prompt.len()..].to_vec(), margin)
}

#[test]
fn greedy_tokens_are_those_of_the_definition() {
    for family in [Family::Llama, Family::Qwen2, Family::Qwen3] {
        let files = Files::new(family);
        let (expected, margin) = defined(&files, &prompt(9, 1), 20, &[]);
        assert!(margin > 1e-4, "{family:?}: this prompt leaves a tie of {margin:.1e}");
        let gguf = Generator::open(&files.gguf(), &Device::cpu(), Options::default()).unwrap();
        for (mut generator, format) in [(files.open(1), "folder"), (gguf, "GGUF file")] {
            let found = tokens(&mut generator, &[request(prompt(9, 1), 20)]).remove(0);
            assert_eq!(found, expected, "{family:?}, {format}");
        }
    }
}

#[test]
fn the_cache_pieces_and_batches_change_nothing() {
    let files = Files::new(Family::Llama);
    let mut generator = files.open(1);
    // 100 tokens are pieces of 64, 32 and 8 here: none of the plans is that large.
    for length in [1, 7, 8, 9, 24, 45, 100] {
        let whole = definition::logits(&files.model, &prompt(length, 2), &[]);
        let last = &whole[whole.len() - files.model.config.vocab..];
        let distance = definition::distance(&generator.logits(&prompt(length, 2), None).unwrap(), last);
        assert!(distance < 1e-5, "{length} tokens: {distance:.1e}");
    }
    let requests: Vec<Request> = (0..7).map(|nth| request(prompt(3 + 5 * nth, nth), 4 + 3 * nth)).collect();
    let single: Vec<Vec<u32>> =
        requests.iter().map(|one| tokens(&mut files.open(1), std::slice::from_ref(one)).remove(0)).collect();
    assert!(single.iter().zip(&requests).all(|(tokens, request)| tokens.len() == request.max_tokens));
    for sequences in [1, 2, 3, 7, 9] {
        let mut generator = files.open(sequences);
        assert_eq!(tokens(&mut generator, &requests), single, "{sequences} at a time");
        // What is in the cache is used again.
        let again = generator.generate(&requests, &mut |_, _| ()).unwrap();
        assert_eq!(again.completions.iter().map(|it| it.tokens.clone()).collect::<Vec<_>>(), single);
        let all: usize = requests.iter().map(|request| request.prompt.len()).sum();
        assert!(again.statistics.prompt_tokens < all || sequences == 1);
    }
}

#[test]
fn adapters_on_off_swapped_and_mixed() {
    let files = Files::new(Family::Llama);
    let all = files.adapter("all", 4, 11, |_| true);
    let some = files.adapter("some", 7, 12, |module| matches!(module, Module::Layer(1, _)));
    let (of_all, of_some) = ([(&all.modules, 1.0)], [(&some.modules, 0.5)]);
    let variants: [&[_]; 4] = [&of_some, &[], &of_all, &of_some];
    // A prompt after which nothing is a tie, which rounding would decide.
    let clear = |text: &Vec<u32>| variants.iter().all(|adapters| defined(&files, text, 12, adapters).1 > 1e-4);
    let text = (3..30).map(|seed| prompt(12, seed)).find(clear).unwrap();
    let expected = |adapters: &[(&definition::Adapter, f64)]| {
        let logits = definition::logits(&files.model, &text, adapters);
        logits[logits.len() - files.model.config.vocab..].to_vec()
    };
    let near = |found: &[f32], expected: &[f64]| {
        let distance = definition::distance(found, expected);
        assert!(distance < 1e-5, "{distance:.1e}");
    };
    let base = expected(&[]);
    assert!(
        definition::distance(&base.iter().map(|&it| it as f32).collect::<Vec<_>>(), &expected(&[(&all.modules, 1.0)]))
            > 0.05
    );
    for path in [files.folder.path().join("hf"), files.gguf()] {
        let mut generator =
            Generator::open(&path, &Device::cpu(), Options { sequences: 4, ..Options::default() }).unwrap();
        let first = generator.load_adapter(&all, 1.0).unwrap();
        near(&generator.logits(&text, Some(first)).unwrap(), &expected(&[(&all.modules, 1.0)]));
        near(&generator.logits(&text, None).unwrap(), &base);
        let second = generator.load_adapter(&some, 0.5).unwrap();
        near(&generator.logits(&text, Some(second)).unwrap(), &expected(&[(&some.modules, 0.5)]));
        near(&generator.logits(&text, Some(first)).unwrap(), &expected(&[(&all.modules, 1.0)]));
        for (strength, expected) in [(0.0, base.clone()), (-1.5, expected(&[(&all.modules, -1.5)]))] {
            generator.set_adapter_strength(first, strength).unwrap();
            near(&generator.logits(&text, Some(first)).unwrap(), &expected);
        }
        generator.set_adapter_strength(first, 1.0).unwrap();

        // Four rows of a batch, each its own.
        let one = |adapter| Request { adapter, ..request(text.clone(), 12) };
        let mixed = tokens(&mut generator, &[one(Some(second)), one(None), one(Some(first)), one(Some(second))]);
        let apart = variants.map(|adapters| defined(&files, &text, 12, adapters).0);
        assert_eq!(mixed, apart);
        assert!(mixed[0] != mixed[1] && mixed[1] != mixed[2]);

        // Another one in the first one's place: the base is not touched, and nothing of the old one is left.
        generator.unload_adapter(first).unwrap();
        let third = generator.load_adapter(&some, 1.0).unwrap();
        near(&generator.logits(&text, Some(third)).unwrap(), &expected(&[(&some.modules, 1.0)]));
        let gone = generator.logits(&text, Some(first)).unwrap_err().to_string();
        assert!(gone.contains("load it again"), "{gone}");
    }
}

#[test]
fn biases_of_adapters_replace_the_models() {
    let files = Files::new(Family::Qwen2);
    let mut adapter = files.adapter("biases", 3, 11, |_| true);
    for (nth, linear) in [Linear::Query, Linear::Value].into_iter().enumerate() {
        let out = linear.shape(&files.model.config)[0];
        let numbers: Vec<f32> = (0..out).map(|i| ((i + nth) % 7) as f32 * 0.1 - 0.3).collect();
        adapter.biases.insert(Module::Layer(1, linear), Tensor::from_f32(&[out], DType::F32, &numbers));
    }
    let text = prompt(12, 3);
    let of_last = |logits: Vec<f64>| logits[logits.len() - files.model.config.vocab..].to_vec();
    let with = definition::logits_with_biases(&files.model, &text, &[(&adapter.modules, 1.0)], &adapter.biases);
    let without = definition::logits(&files.model, &text, &[(&adapter.modules, 1.0)]);
    for path in [files.folder.path().join("hf"), files.gguf()] {
        let mut generator = Generator::open(&path, &Device::cpu(), Options::default()).unwrap();
        let id = generator.load_adapter(&adapter, 1.0).unwrap();
        let found = generator.logits(&text, Some(id)).unwrap();
        assert!(definition::distance(&found, &of_last(with.clone())) < 1e-5);
        assert!(definition::distance(&found, &of_last(without.clone())) > 1e-3);
        let base = definition::logits(&files.model, &text, &[]);
        assert!(definition::distance(&generator.logits(&text, None).unwrap(), &of_last(base)) < 1e-5);
    }
}

#[test]
fn stop_strings_end_a_text_wherever_tokens_cut_it() {
    let files = Files::new(Family::Llama);
    let mut generator = files.open(1);
    let whole = generator.generate(&[request(prompt(9, 1), 30)], &mut |_, _| ()).unwrap().completions.remove(0);
    assert_eq!((whole.finish, whole.tokens.len()), (Finish::MaxTokens, 30));
    let characters: Vec<char> = whole.text.chars().collect();
    for start in [2, 5, characters.len() / 2] {
        let stop: String = characters[start..start + 4].iter().collect();
        let expected = &whole.text[..whole.text.find(&stop).unwrap()];
        let asked = Request { stop: vec!["never there".into(), stop.clone()], ..request(prompt(9, 1), 30) };
        let mut streamed = String::new();
        let found = generator.generate(&[asked], &mut |_, text| streamed += text).unwrap().completions.remove(0);
        assert_eq!((&*found.text, &*streamed, found.finish), (expected, expected, Finish::StopString), "{stop:?}");
    }
}

#[test]
fn the_models_own_end_and_the_context_end_a_text() {
    let files = Files::new(Family::Llama);
    let mut generator = files.open_with(Options { context: Some(16), ..Options::default() });
    let full = generator.generate(&[request(prompt(10, 1), 30)], &mut |_, _| ()).unwrap().completions.remove(0);
    assert_eq!((full.finish, full.tokens.len()), (Finish::Context, 7));
    // Sampling hot enough says the end soon.
    let hot = Sampling { temperature: 50.0, ..Sampling::default() };
    let ended = (0..200).any(|seed| {
        let asked = Request { sampling: Sampling { seed, ..hot }, ..Request::new(prompt(3, 1)) };
        let found = generator.generate(&[asked], &mut |_, _| ()).unwrap().completions.remove(0);
        let stops = generator.tokenizer().stops().to_vec();
        assert!(found.tokens.iter().all(|token| !stops.contains(token)));
        found.finish == Finish::End
    });
    assert!(ended, "one of 200 texts of 13 tokens of 320 says the end");
}

#[test]
fn the_same_seed_draws_the_same_tokens() {
    let files = Files::new(Family::Qwen2);
    let asked = |seed| Request {
        sampling: Sampling { temperature: 1.5, top_p: 0.95, seed, ..Sampling::default() },
        ..request(prompt(9, 1), 25)
    };
    let of = |seed| tokens(&mut files.open(1), &[asked(seed)]).remove(0);
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    assert_eq!(tokens(&mut files.open(2), &[asked(1), asked(2)]), [of(1), of(2)]);
}

#[test]
fn what_cannot_be_done_is_refused_with_the_remedy() {
    let files = Files::new(Family::Llama);
    let mut generator = files.open_with(Options { context: Some(32), ..Options::default() });
    let mut refused = |request: Request| generator.generate(&[request], &mut |_, _| ()).unwrap_err().to_string();
    let empty = refused(Request::new(vec![]));
    assert!(empty.contains("prompt 1: it has no tokens") && empty.contains("give a text"), "{empty}");
    let long = refused(Request::new(prompt(33, 1)));
    assert!(
        long.contains("33 tokens") && long.contains("context is 32") && long.contains("this model has 128"),
        "{long}"
    );
    let strange = refused(Request::new(vec![5, 320]));
    assert!(strange.contains("token 320") && strange.contains("320"), "{strange}");
    for (sampling, named) in [
        (Sampling { temperature: -1.0, ..Sampling::default() }, "temperature"),
        (Sampling { top_p: 0.0, ..Sampling::default() }, "top_p"),
        (Sampling { top_k: Some(0), ..Sampling::default() }, "top_k"),
        (Sampling { min_p: f32::NAN, ..Sampling::default() }, "min_p"),
        (Sampling { repetition_penalty: 0.0, ..Sampling::default() }, "repetition_penalty"),
    ] {
        let message = refused(Request { sampling, ..Request::new(vec![1]) });
        assert!(message.starts_with(named), "{message}");
    }
    let wrong = Options { context: Some(129), ..Options::default() };
    let Err(wrong) = Generator::open(&files.gguf(), &Device::cpu(), wrong) else { panic!("a context of 129 of 128") };
    assert!(wrong.to_string().contains("1 to 128"), "{wrong}");

    // An adapter of a model with other sizes.
    let mut config = tiny_config(Family::Llama);
    config.hidden = 128;
    let other = TinyModel::new(config, Format::Float(DType::F32), 1).adapter_modules(2, DType::F32, 1);
    let other = Adapter::new("other", Some("somebody/else"), other).unwrap();
    let message = generator.load_adapter(&other, 1.0).unwrap_err().to_string();
    assert!(message.contains("adapter other") && message.contains("somebody/else"), "{message}");
    assert_eq!(tokens(&mut generator, &[request(prompt(3, 1), 2)])[0].len(), 2, "it still works");
}

#[test]
fn sixteen_bits_generate_too() {
    let files = Files::new(Family::Qwen3);
    let adapter = files.adapter("all", 3, 5, |_| true);
    for dtype in [DType::F16, DType::BF16] {
        let decoder = decoder::Options { dtype: Some(dtype), ..decoder::Options::default() };
        let mut generator = files.open_with(Options { decoder, ..Options::default() });
        let id = generator.load_adapter(&adapter, 1.0).unwrap();
        let expected = definition::logits(&files.model, &prompt(20, 4), &[(&adapter.modules, 1.0)]);
        let last = &expected[expected.len() - files.model.config.vocab..];
        let distance = definition::distance(&generator.logits(&prompt(20, 4), Some(id)).unwrap(), last);
        assert!(distance < 0.08, "{dtype}: {distance:.1e}");
    }
}
