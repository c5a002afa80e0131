//! Language models on the emulated GPU: nothing but tests.

use metal_emulator as _;
