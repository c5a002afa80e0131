//! From preprocessed Metal source to C++, token by token, every line kept in its place.

mod constants;
mod items;
mod kernels;
mod overloads;
mod source;
mod swizzles;
mod tables;
mod threadgroup;
mod words;

use source::Source;

/// A source that the emulator cannot take.
#[derive(Debug)]
pub struct Failure {
    /// The line of the user's source.
    pub line: u32,
    /// Why.
    pub text: String,
}

impl Failure {
    fn new(line: u32, text: impl Into<String>) -> Self {
        Failure { line, text: text.into() }
    }
}

type Result<T> = std::result::Result<T, Failure>;

/// Rewrites preprocessed text; `file` is the name that its line markers give to the user's source.
pub fn rewrite(preprocessed: &str, file: &str) -> Result<String> {
    let mut source = Source::new(preprocessed, file);
    let items = items::parse(&source, 0..source.len());
    overloads::fold(&mut source, &items);
    let kernels = kernels::take(&mut source, &items)?;
    let constants = constants::take(&mut source, &items);
    threadgroup::make_static(&mut source);
    swizzles::make_calls(&mut source);
    words::translate(&mut source);
    Ok(source.finish() + &tables::write(&kernels, &constants, file))
}

#[cfg(test)]
mod tests;
