//! What the numbers of a run come from, by digest: a checkpoint goes on only from the same.

use super::Result;
use candlewick_model::{Role, Weights};
use sha2::{Digest, Sha256};

/// Bytes of the beginning and of the end of each weight that are looked at: all of a large model takes too long.
const LOOKED_AT: usize = 1 << 12;

/// Of a model: its configuration, and the form and both ends of every weight.
///
/// # Errors
/// What the file says.
pub(super) fn model(weights: &Weights) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", weights.config()));
    for role in Role::all(weights.config()) {
        let weight = weights.get(role)?;
        hash.update(format!("{} {} {} {}", role.hugging_face(), weight.format, weight.rows, weight.cols));
        hash.update(&weight.bytes[..weight.bytes.len().min(LOOKED_AT)]);
        hash.update(&weight.bytes[weight.bytes.len().saturating_sub(LOOKED_AT)..]);
    }
    Ok(short(hash))
}

/// Of a data file's bytes.
pub(super) fn data(bytes: &[u8]) -> String {
    short(Sha256::new().chain_update(bytes))
}

/// Long enough that two do not meet by chance, short enough for a message.
fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
