//! The tokenizer of a GGUF file, built from its vocabulary as a BPE of the `tokenizers` crate.
//!
//! What the fields mean, and the regular expressions, are llama.cpp's (`src/llama-vocab.cpp`).

use super::json::check_merge;
use super::{ChatTemplate, Tokenizer, failed};
use crate::gguf::Gguf;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use tokenizers::models::bpe::{BPE, BpeBuilder, Vocab};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper};

/// Words of GPT-2: contractions, letters, digits, the rest, spaces.
const GPT_2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's: at most three digits together.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Qwen2's: digits one by one.
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Kinds of tokens (`llama_token_type`).
const UNKNOWN: f64 = 2.0;
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// Control tokens that end a turn, in whatever family: llama.cpp stops at them by their text.
const ENDS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
];

/// A vocabulary, as the file lists it.
struct Vocabulary<'a> {
    path: &'a Path,
    tokens: Vec<&'a str>,
    ids: HashMap<&'a str, u32>,
    kinds: Vec<f64>,
}

pub(super) fn read(file: &Gguf) -> Result<Tokenizer> {
    let path = file.path();
    let vocabulary = vocabulary(file)?;
    let model = file.string("tokenizer.ggml.model")?.unwrap_or_default();
    let mut inner = match model {
        "gpt2" => byte_level(file, &vocabulary)?,
        "llama" => sentence_piece(file, &vocabulary)?,
        _ => {
            let remedy = "gpt2 (byte-level BPE) and llama (SentencePiece BPE) are: use the Hugging Face folder";
            return Err(Error::unsupported(path, "tokenizer.ggml.model", model, remedy));
        }
    };
    add_tokens(&mut inner, &vocabulary)?;
    let mut tokenizer = Tokenizer::plain(inner, path);
    let token = |name: &str| token(file, &vocabulary, name);
    let (bos, eos) = (token("bos_token_id")?, token("eos_token_id")?);
    let flag = |name: &str| file.bool(&format!("tokenizer.ggml.{name}"));
    let pre = file.string("tokenizer.ggml.pre")?.unwrap_or_default();
    let wants_bos = model == "llama" || words(pre).is_some_and(|words| words.begins_with_bos);
    if flag("add_bos_token")?.unwrap_or(wants_bos) {
        tokenizer.before.extend(bos);
    }
    if flag("add_eos_token")?.unwrap_or(false) {
        tokenizer.after.extend(eos);
    }
    tokenizer.bos = bos;
    tokenizer.stop_at(eos);
    for name in ["eot_token_id", "eom_token_id"] {
        tokenizer.stop_at(token(name)?);
    }
    for end in ENDS {
        let id = vocabulary.ids.get(end).copied();
        tokenizer.stop_at(id.filter(|&id| vocabulary.kinds[id as usize] == CONTROL));
    }
    if let Some(source) = file.string("tokenizer.chat_template")? {
        let spelled = |token: Option<u32>| token.map_or("", |token| vocabulary.tokens[token as usize]);
        let field = "tokenizer.chat_template";
        tokenizer.chat = Some(ChatTemplate::new(path, field, source, spelled(bos), spelled(eos))?);
    }
    Ok(tokenizer)
}

fn vocabulary(file: &Gguf) -> Result<Vocabulary<'_>> {
    let (path, key) = (file.path(), "tokenizer.ggml.tokens");
    let tokens = file.strings(key)?.ok_or_else(|| Error::missing(path, key, "the file must hold a tokenizer"))?;
    let tokens: Vec<&str> = tokens.collect();
    let kinds = match file.floats("tokenizer.ggml.token_type")? {
        None => vec![1.0; tokens.len()],
        Some(kinds) if kinds.len() == tokens.len() => kinds.collect(),
        Some(kinds) => {
            let problem = format!("has {} entries for {} tokens", kinds.len(), tokens.len());
            return Err(Error::damaged(path, "tokenizer.ggml.token_type", problem));
        }
    };
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate() {
        let id = u32::try_from(id).map_err(|_| Error::damaged(path, key, "has more tokens than u32 can number"))?;
        if let Some(other) = ids.insert(*token, id) {
            return Err(Error::damaged(path, key, format!("{token:?} is both token {other} and token {id}")));
        }
    }
    Ok(Vocabulary { path, tokens, ids, kinds })
}

/// The token that a key names, which must be one of the vocabulary.
fn token(file: &Gguf, vocabulary: &Vocabulary<'_>, name: &str) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{name}");
    let Some(id) = file.unsigned(&key)? else { return Ok(None) };
    let token = u32::try_from(id).ok().filter(|&id| (id as usize) < vocabulary.tokens.len());
    let problem = format!("{id} is not one of {} tokens", vocabulary.tokens.len());
    token.map(Some).ok_or_else(|| Error::damaged(file.path(), key, problem))
}

/// How a text is cut into words before merges.
struct Words {
    pre_tokenizer: Value,
    normalizer: Option<Value>,
    /// A word that is a token is that token, whatever the merges say.
    whole_words: bool,
    begins_with_bos: bool,
}

/// The kinds of words by `tokenizer.ggml.pre`; a file without it means llama.cpp's default.
fn words(pre: &str) -> Option<Words> {
    let split = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let plain = |patterns: &[&str]| {
        let mut steps: Vec<Value> = patterns.iter().map(|pattern| split(pattern)).collect();
        steps.push(bytes.clone());
        let pre_tokenizer = json!({"type": "Sequence", "pretokenizers": steps});
        Words { pre_tokenizer, normalizer: None, whole_words: false, begins_with_bos: false }
    };
    Some(match pre {
        "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" => plain(&[GPT_2]),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => plain(&[r"\p{N}", GPT_2]),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" => {
            Words { whole_words: true, begins_with_bos: true, ..plain(&[LLAMA_3]) }
        }
        "qwen2" | "deepseek-r1-qwen" => Words { normalizer: Some(json!({"type": "NFC"})), ..plain(&[QWEN_2]) },
        "" | "default" => plain(&[r"[\p{P}\$\+<=>\^~\|]+", GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"]),
        _ => return None,
    })
}

/// Byte-level BPE with the file's merges.
fn byte_level(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<tokenizers::Tokenizer> {
    let (path, key) = (file.path(), "tokenizer.ggml.merges");
    let pre = file.string("tokenizer.ggml.pre")?.unwrap_or_default();
    let words = words(pre).ok_or_else(|| {
        let remedy = "smollm, llama-bpe, qwen2, gpt-2 and default are: use the Hugging Face folder";
        Error::unsupported(path, "tokenizer.ggml.pre", pre, remedy)
    })?;
    if file.bool("tokenizer.ggml.add_space_prefix")? == Some(true) {
        return Err(Error::unsupported(path, "tokenizer.ggml.add_space_prefix", "true", "false is, for gpt2"));
    }
    let lines = file.strings(key)?.ok_or_else(|| Error::missing(path, key, "a gpt2 tokenizer needs its merges"))?;
    let mut merges = Vec::with_capacity(lines.len());
    for line in lines {
        // Tokens may begin with a space, so that the space between them is the first after the first character.
        let space = line.char_indices().skip(1).find(|&(_, c)| c == ' ').map(|(at, _)| at);
        let space = space.ok_or_else(|| Error::damaged(path, key, format!("{line:?} is not a pair of tokens")))?;
        let (left, right) = (&line[..space], &line[space + 1..]);
        check_merge(path, key, left, right, |token| vocabulary.ids.contains_key(token))?;
        merges.push((left.to_owned(), right.to_owned()));
    }
    let model = bpe(vocabulary, merges, |model| model.ignore_merges(words.whole_words))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let normalizer = words.normalizer.map(part::<NormalizerWrapper>).transpose()?;
    tokenizer.with_normalizer(normalizer).map_err(|error| failed("tokenizer", error))?;
    tokenizer.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(words.pre_tokenizer)?));
    let decoder = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    tokenizer.with_decoder(Some(part::<DecoderWrapper>(decoder)?));
    Ok(tokenizer)
}

/// SentencePiece's BPE: what merges first is what makes the token of the highest score.
fn sentence_piece(file: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<tokenizers::Tokenizer> {
    let (path, key) = (file.path(), "tokenizer.ggml.scores");
    let scores = file.floats(key)?.ok_or_else(|| Error::missing(path, key, "a llama tokenizer needs its scores"))?;
    let scores: Vec<f64> = scores.collect();
    if scores.len() != vocabulary.tokens.len() || scores.iter().any(|score| score.is_nan()) {
        return Err(Error::damaged(path, key, "is not one number for each token"));
    }
    let mut merges = Vec::new();
    for (token, score) in vocabulary.tokens.iter().zip(scores) {
        let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        for (left, right) in cuts {
            if let (Some(&l), Some(&r)) = (vocabulary.ids.get(left), vocabulary.ids.get(right)) {
                merges.push((score, l, r));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
    let text = |id: u32| vocabulary.tokens[id as usize].to_owned();
    let merges = merges.into_iter().map(|(_, left, right)| (text(left), text(right))).collect();
    let unknown = vocabulary.kinds.iter().position(|&kind| kind == UNKNOWN);
    let model = bpe(vocabulary, merges, |model| {
        let model = model.byte_fallback(true).fuse_unk(true);
        match unknown {
            Some(id) => model.unk_token(vocabulary.tokens[id].to_owned()),
            None => model,
        }
    })?;
    let prefix = file.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let mut normalizers = vec![spaces];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let normalizer = part::<NormalizerWrapper>(json!({"type": "Sequence", "normalizers": normalizers}))?;
    tokenizer.with_normalizer(Some(normalizer)).map_err(|error| failed("tokenizer", error))?;
    tokenizer.with_decoder(Some(part::<DecoderWrapper>(json!({"type": "Sequence", "decoders": decoders}))?));
    Ok(tokenizer)
}

/// A BPE of the vocabulary; `merges` are checked.
fn bpe(
    vocabulary: &Vocabulary<'_>,
    merges: Vec<(String, String)>,
    set: impl FnOnce(BpeBuilder) -> BpeBuilder,
) -> Result<BPE> {
    let ids = vocabulary.ids.iter().map(|(&token, &id)| (token.to_owned(), id)).collect::<Vocab>();
    let builder = set(BPE::builder().vocab_and_merges(ids, merges));
    builder.build().map_err(|error| Error::damaged(vocabulary.path, "tokenizer.ggml.merges", error.to_string()))
}

/// Control tokens are special: decoding leaves them out. Tokens defined by users are found in a text before its words.
fn add_tokens(tokenizer: &mut tokenizers::Tokenizer, vocabulary: &Vocabulary<'_>) -> Result<()> {
    let mut added = Vec::new();
    for (token, &kind) in vocabulary.tokens.iter().zip(&vocabulary.kinds) {
        let special = kind == CONTROL || kind == UNKNOWN;
        if (special || kind == USER_DEFINED) && !token.is_empty() {
            added.push(AddedToken::from(*token, special).normalized(false));
        }
    }
    tokenizer.add_tokens(added).map_err(|error| failed("tokenizer", error))?;
    Ok(())
}

/// A part of the `tokenizers` crate from its JSON, which is its documented form.
fn part<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| failed("tokenizer", error))
}
