//! A byte-level BPE of 320 tokens, as `tokenizer.json` and as a GGUF file has it.

use super::gguf::{GgufWriter, Item};
use serde_json::{Value, json};

/// Tokens: 3 special ones, 256 bytes, some merges, the rest unused.
pub(super) const SIZE: usize = 320;
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES: [(&str, &str); 8] =
    [("h", "e"), ("Ġ", "t"), ("Ġt", "he"), ("l", "l"), ("o", "r"), ("he", "ll"), ("Ġ", "w"), ("Ã", "©")];
const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'].strip() }}\
<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn tokens() -> Vec<String> {
    let mut tokens: Vec<String> = SPECIAL.map(str::to_owned).to_vec();
    // GPT-2's letters for bytes: printable ones stand for themselves, the others for letters from U+0100 on.
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100..;
    for byte in 0..=255u8 {
        let letter = if printable(byte) { u32::from(byte) } else { others.next().unwrap_or_default() };
        tokens.extend(char::from_u32(letter).map(String::from));
    }
    tokens.extend(MERGES.map(|(left, right)| format!("{left}{right}")));
    (tokens.len()..SIZE).for_each(|nth| tokens.push(format!("[unused{nth}]")));
    tokens
}

pub(super) fn json() -> Value {
    let vocab: serde_json::Map<String, Value> =
        tokens().into_iter().zip(0..SIZE).map(|(t, id)| (t, json!(id))).collect();
    let added = SPECIAL.iter().enumerate().map(|(id, token)| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true})
    });
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, bytes]},
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "vocab": vocab,
            "merges": MERGES.map(|(left, right)| format!("{left} {right}")),
        },
    })
}

pub(super) fn config_json() -> Value {
    json!({"bos_token": SPECIAL[1], "eos_token": {"content": SPECIAL[2]}, "chat_template": TEMPLATE})
}

pub(super) fn put(file: &mut GgufWriter) {
    let mut kinds = vec![1; SIZE];
    kinds[..SPECIAL.len()].fill(3);
    file.put("tokenizer.ggml.model", Item::Text("gpt2"));
    file.put("tokenizer.ggml.pre", Item::Text("smollm"));
    file.put("tokenizer.ggml.tokens", Item::Texts(&tokens()));
    file.put("tokenizer.ggml.token_type", Item::I32s(&kinds));
    file.put("tokenizer.ggml.merges", Item::Texts(&MERGES.map(|(left, right)| format!("{left} {right}"))));
    file.put("tokenizer.ggml.bos_token_id", Item::U32(1));
    file.put("tokenizer.ggml.eos_token_id", Item::U32(2));
    file.put("tokenizer.ggml.add_bos_token", Item::Bool(false));
    file.put("tokenizer.chat_template", Item::Text(TEMPLATE));
}
