//! The operations that models need, on every engine of this CPU, one thread and all, against the f64 reference: odd
//! sizes, strides, every dtype, special numbers, nothing at all. What lies around an output stays as it was.

mod adamw;
mod attention;
mod cast;
mod copy_rows;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod engines;
mod lora_rows;
mod matmul;
mod quant;
mod rope;
mod storage;
