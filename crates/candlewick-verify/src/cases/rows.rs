//! Rows and columns for every operation by rows.

/// Large enough for every thread, long and thin, empty.
pub(super) const ROWS: [(usize, usize); 10] =
    [(128, 4096), (257, 1023), (1, 70_001), (70_001, 1), (3, 16_385), (1000, 17), (0, 9), (9, 0), (1, 1), (64, 64)];

/// The same where the GPU kernels give a row to another number of threads, or read it again.
pub(super) const GPU_ROWS: [(usize, usize); 15] = [
    (5, 64),
    (9, 256),
    (3, 257),
    (2, 1024),
    (1, 4096),
    (1, 8192),
    (1, 8193),
    (1, 17_000),
    (70, 1),
    (33, 17),
    (1, 1),
    (0, 9),
    (9, 0),
    (40, 48),
    (1, 20_480),
];
