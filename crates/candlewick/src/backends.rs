//! The one place that lists every backend: what holds one value of each hands a call on to the one that it holds.

/// Runs an expression on whatever `$value`, an enum with one variant per backend, holds. With `=> To`, the result's value
/// is put into the same variant of `To`.
macro_rules! on_each {
    ($enum:ident, $value:expr, $inner:ident => $body:expr) => {
        match $value {
            $enum::Cpu($inner) => $body,
            $enum::Empty($inner) => $body,
            #[cfg(metal)]
            $enum::Metal($inner) => $body,
            #[cfg(cuda)]
            $enum::Cuda($inner) => $body,
        }
    };
    ($enum:ident => $to:ident, $value:expr, $inner:ident => $body:expr) => {
        match $value {
            $enum::Cpu($inner) => $body.map($to::Cpu),
            $enum::Empty($inner) => $body.map($to::Empty),
            #[cfg(metal)]
            $enum::Metal($inner) => $body.map($to::Metal),
            #[cfg(cuda)]
            $enum::Cuda($inner) => $body.map($to::Cuda),
        }
    };
}

/// The same for a stream and a buffer, which must be of one backend.
macro_rules! on_both {
    ($stream:expr, $buffer:expr, ($s:ident, $b:ident) => $body:expr, $otherwise:expr) => {
        match ($stream, $buffer) {
            (Stream::Cpu($s), Buffer::Cpu($b)) => $body,
            (Stream::Empty($s), Buffer::Empty($b)) => $body,
            #[cfg(metal)]
            (Stream::Metal($s), Buffer::Metal($b)) => $body,
            #[cfg(cuda)]
            (Stream::Cuda($s), Buffer::Cuda($b)) => $body,
            _ => $otherwise,
        }
    };
}

/// The same for an argument that is read.
macro_rules! on_each_input {
    ($value:expr, $inner:ident => $body:expr) => {
        match $value {
            Input::Host($inner) => $body,
            Input::Empty($inner) => $body,
            #[cfg(metal)]
            Input::Metal($inner) => $body,
            #[cfg(cuda)]
            Input::Cuda($inner) => $body,
        }
    };
}

/// The same for an argument that is written.
macro_rules! on_each_output {
    ($value:expr, $inner:ident => $body:expr) => {
        match $value {
            Output::Host($inner) => $body,
            Output::Empty($inner) => $body,
            #[cfg(metal)]
            Output::Metal($inner) => $body,
            #[cfg(cuda)]
            Output::Cuda($inner) => $body,
        }
    };
}

pub(crate) use {on_both, on_each, on_each_input, on_each_output};
