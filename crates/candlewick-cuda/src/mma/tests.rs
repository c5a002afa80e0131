//! What can be seen of the programs without a GPU.

use super::attention::{self, Pass};
use super::ping_pong::THREADS;
use super::tile::{DELTAS, PRODUCTS};
use super::warp_specialised::Pairs;
use super::{
    behind_products, delta, kept_hidden, lora_backward, prefers, product, product_sum, program, projections,
    silu_product, warp_specialised,
};
use crate::chip::{Chip, h100};
use crate::program::{Launch, Program, Source};
use candlewick_core::op::Batch;
use candlewick_core::{Attention, DType, LoraDelta, LoraLinear, MatMul, Op};
use candlewick_kernels::{Alignment, Place};
use std::collections::HashSet;

fn a100() -> Chip {
    Chip { name: "NVIDIA A100".into(), capability: (8, 0), multiprocessors: 108, shared_bytes: 166_912, ..h100() }
}

fn sixteen(op: impl Into<Op>, chip: &Chip) -> Option<Program> {
    program(&op.into(), chip, Alignment::Sixteen)
}

/// Types and names of a structure's fields, as they stand in a kernel's text.
fn fields(text: &str, name: &str) -> Vec<String> {
    let start = text.find(&format!("struct {name} {{\n")).unwrap_or_else(|| panic!("no struct {name}"));
    let body = text[start..].split("};").next().unwrap();
    body.lines()
        .skip(1)
        .map(|line| line.trim().trim_end_matches(';').to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

#[test]
fn parameters_lie_as_the_kernels_read_them() {
    let product = include_str!("../../kernels/product.cu");
    let expected = "u64 a_row,u64 b_row,u64 c_row,u64 a_batch[3],u64 b_batch[3],u64 c_batch[3],u32 batch[3],u32 m,u32 n,\
                    u32 k,u32 rank,u32 steps,u32 has_bias,float alpha,float beta,float factor";
    assert_eq!(fields(product, "ProductParams").join(","), expected);
    assert_eq!(product::FIELDS.join(","), expected);
    let expected = "u64 a_row,u64 c_row,u32 m,u32 n,u32 k,u32 rank,u32 steps,float beta,float factor,u32 unused";
    assert_eq!(fields(include_str!("../../kernels/delta.cu"), "DeltaParams").join(","), expected);
    assert_eq!(delta::FIELDS.join(","), expected);
    let text = include_str!("../../kernels/lora_hidden.h");
    let without_comment = |field: String| field.split(';').next().unwrap_or_default().to_owned();
    let found: Vec<String> = fields(text, "LoraBackwardParams").into_iter().map(without_comment).collect();
    assert_eq!(found, lora_backward::FIELDS);
    let text = include_str!("../../kernels/warp_specialised.h");
    assert_eq!(fields(text, "WarpSpecialisedParams"), warp_specialised::FIELDS);
    let text = include_str!("../../kernels/product_sum.cu");
    let found: Vec<String> = fields(text, "ProductSumParams").into_iter().map(without_comment).collect();
    assert_eq!(found, product_sum::FIELDS);
    let text = include_str!("../../kernels/silu.h");
    let found: Vec<String> = fields(text, "SiluProductParams").into_iter().map(without_comment).collect();
    assert_eq!(found, silu_product::FIELDS);
    let text = include_str!("../../kernels/projections.cu");
    let found: Vec<String> = fields(text, "Projection").into_iter().map(without_comment).collect();
    assert_eq!(found, projections::FIELDS);
    let text = include_str!("../../kernels/attention_tiles.h");
    let without_comment = |field: String| field.split(';').next().unwrap_or_default().to_owned();
    let found: Vec<String> = fields(text, "AttentionParams").into_iter().map(without_comment).collect();
    assert_eq!(found, attention::FIELDS);
}

#[test]
fn every_instance_fits_a_block_and_has_its_own_name() {
    let products = PRODUCTS.iter().map(|tile| (tile.name, tile.threads(), tile.shared_bytes(), tile.runs_on(&h100())));
    let deltas = DELTAS.iter().map(|tile| (tile.name, tile.threads(), tile.shared_bytes(), tile.runs_on(&h100())));
    let specialised = warp_specialised::TILES.iter();
    let specialised = specialised
        .map(|tile| (tile.name, tile.threads(), tile.shared_bytes(), tile.stages() > 2 && tile.runs_on(&h100())));
    let by_turns =
        projections::TILES.iter().chain([&product_sum::TILE, &silu_product::FORWARD, &silu_product::BACKWARD]);
    let by_turns = by_turns.map(|tile| (tile.name, THREADS, tile.shared_bytes(), tile.stages > 2));
    let mut names = HashSet::new();
    let passes = Pass::ALL.into_iter().map(|pass| (pass.name(), pass.threads(), pass.shared_bytes(8), true));
    let hidden = lora_backward::HIDDEN.iter().map(|tile| (tile.name, tile.shared_bytes()));
    let gradients = lora_backward::GRADIENTS.iter().map(|tile| (tile.name, tile.shared_bytes()));
    let backward = hidden.chain(gradients).map(|(name, shared)| (name, lora_backward::THREADS, shared, true));
    for (name, threads, shared, runs) in
        products.chain(specialised).chain(by_turns).chain(deltas).chain(passes).chain(backward)
    {
        assert!(names.insert(name), "{name} twice");
        assert!(threads <= 1024 && shared <= 227 * 1024 && runs, "{name}: {threads} threads, {shared} bytes");
    }
}

#[test]
fn blocks_cover_the_output_and_the_sum() {
    for (rows, ins, outs, rank) in
        [(1, 8, 1, 1), (5, 72, 37, 3), (32, 512, 512, 8), (129, 2056, 1001, 33), (64, 4096, 4096, 64)]
    {
        for chip in [Chip { capability: (10, 0), ..h100() }, a100()] {
            let op = LoraLinear::new(rows, ins, outs, rank, 2.0, DType::F16);
            let launch = sixteen(op, &chip).unwrap().launches.remove(0);
            let tile = PRODUCTS.iter().find(|tile| tile.name == launch.entry).unwrap();
            let [x, y, z] = launch.grid.map(|blocks| blocks as usize);
            assert!(x / tile.cluster as usize * tile.cols as usize >= outs && y * tile.rows as usize >= rows && z == 1);
            assert!(x.is_multiple_of(tile.cluster as usize) && launch.cluster == tile.cluster);
            // `steps` stands behind m, n, k and rank.
            let steps = u32::from_ne_bytes(launch.params[124..128].try_into().unwrap());
            assert!((steps * tile.depth * tile.cluster) as usize >= ins, "{steps} steps of {}", tile.name);
            assert!(rank <= tile.rank as usize);
        }
    }
}

#[test]
fn tensor_maps_are_of_the_operands_and_no_larger_than_they_are() {
    let mut seen = HashSet::new();
    for (rows, ins, outs, rank) in [(1, 8, 8, 1), (70, 72, 40, 3), (1000, 584, 1000, 13), (512, 4096, 4096, 64)] {
        let plain = LoraLinear::new(rows, ins, outs, rank, 2.0, DType::F16);
        let op = LoraLinear { x_row: ins + 16, y_row: outs + 8, ..plain };
        let operands = Op::from(op).operands().unwrap();
        let layer = warp_specialised::Product::lora(&op, &operands).unwrap();
        for other in [op.with_bias(), op.accumulate()] {
            let operands = Op::from(other).operands().unwrap();
            assert!(warp_specialised::Product::lora(&other, &operands).is_none(), "it adds nothing to y");
        }
        for tile in warp_specialised::TILES.iter().filter(|tile| layer.fits(tile)) {
            assert!(rank <= tile.rank as usize);
            let program = layer.program(tile);
            let (launch, stacked) = (&program.launches[0], tile.pairs == Pairs::Stacked);
            let [x, y, z] = launch.grid.map(|blocks| blocks as usize);
            let (m_tiles, n_tiles) = (rows.div_ceil(tile.rows as usize), outs.div_ceil(tile.cols as usize));
            let ahead = if stacked { m_tiles } else { 0 };
            assert!(x * y * z == m_tiles * n_tiles * tile.cluster as usize + ahead && (stacked || y == m_tiles));
            assert!(x.is_multiple_of(tile.blocks() as usize) && launch.cluster == tile.blocks());
            // h as f32, behind two numbers for each of 128 rows of tiles.
            let h = 4 * m_tiles * (tile.rows * tile.rank) as usize;
            assert_eq!(program.workspace_bytes as usize, if stacked { 1024 + h } else { 0 });
            assert!(program.counts == stacked && launch.bindings[2].memory.bytes == program.workspace_bytes);
            // `copied` and `steps` stand behind the stride, m, n and the rank.
            let number = |at: usize| u32::from_ne_bytes(launch.params[at..at + 4].try_into().unwrap());
            assert!(number(20) as usize * 64 >= ins && (number(20) as usize - 1) * 64 < ins);
            // Each of two stacked blocks copies half of what both have of W.
            let most = [tile.rows, if stacked { tile.cols / 2 } else { tile.cols }, tile.rank];
            let lines: u32 =
                launch.maps.iter().zip([1, if stacked { 2 } else { 1 }, 1]).map(|(map, times)| map.tile * times).sum();
            assert_eq!(number(24), lines * 128);
            let lines = [(rows, ins + 16, 0), (outs, ins, 1), (rank, ins, 2)];
            for ((map, (lines, stride, place)), most) in launch.maps.iter().zip(lines).zip(most) {
                assert_eq!((map.lines, map.columns, map.stride), (lines as u64, ins as u64, stride as u64));
                assert!(map.tile == most.min(lines as u32) && map.tile <= 256);
                seen.insert(tile.pairs);
                assert_eq!(map.binding.memory.place, Place::Input(place));
                assert_eq!(map.binding.memory.bytes as usize, 2 * operands.inputs[usize::from(place)].span);
            }
        }
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn what_was_measured_takes_the_tile_that_was_fastest() {
    let tile =
        |rows, size, rank| sixteen(LoraLinear::new(rows, size, size, rank, 1.0, DType::BF16), &h100()).unwrap().variant;
    assert_eq!(tile(1, 512, 8), "lora_16x16_r8");
    assert_eq!(tile(32, 512, 8), "warp_specialised_64x32_r8");
    assert_eq!(tile(64, 1024, 16), "warp_specialised_64x32_r16");
    assert_eq!(tile(24, 2048, 16), "warp_specialised_64x32_r16");
    assert_eq!(tile(256, 1024, 16), "warp_specialised_64x64_r16");
    assert_eq!(tile(512, 1024, 16), "warp_specialised_128x64_r16");
    assert_eq!(tile(128, 2048, 32), "warp_specialised_64x64_r32");
    assert_eq!(tile(1, 4096, 16), "warp_specialised_64x64_r16");
    assert_eq!(tile(64, 4096, 16), "warp_specialised_64x64_r16");
    assert_eq!(tile(65, 4096, 16), "warp_specialised_128x64_r16");
    assert_eq!(tile(128, 4096, 16), "warp_specialised_128x64_r16");
    assert_eq!(tile(256, 4096, 16), "warp_specialised_128x64_beside_r16");
    assert_eq!(tile(512, 2048, 16), "warp_specialised_128x64_beside_r16");
    assert_eq!(tile(512, 4096, 16), "warp_specialised_128x128_stacked_r16");
    assert_eq!(tile(2048, 2048, 16), "warp_specialised_128x256_beside_r16");
    assert_eq!(tile(1024, 4096, 16), "warp_specialised_128x256_beside_r16");
    assert_eq!(tile(4096, 4096, 16), "warp_specialised_128x256_beside_r16");
    assert_eq!(tile(2048, 1024, 16), "warp_specialised_128x128_r16");
    let many = |rows, ins, outs| {
        let op = Op::from(LoraLinear::new(rows, ins, outs, 16, 1.0, DType::BF16));
        prefers(&op, &h100()).then(|| sixteen(op, &h100()).unwrap().variant)
    };
    assert_eq!(many(1024, 576, 192), Some("warp_specialised_64x24_r16"));
    assert_eq!(many(1024, 576, 576), Some("warp_specialised_64x96_r16"));
    assert_eq!(many(1024, 576, 1536), Some("warp_specialised_128x96_r16"));
    assert_eq!(many(1024, 1536, 576), Some("warp_specialised_64x96_r16"));
    assert_eq!(many(4096, 576, 192), Some("warp_specialised_64x96_r16"));
    assert_eq!(many(4096, 576, 576), Some("warp_specialised_128x144_r16"));
    assert_eq!(many(4096, 576, 1536), Some("warp_specialised_128x192_r16"));
    assert_eq!(many(4096, 1536, 576), Some("warp_specialised_128x144_r16"));
    assert_eq!(many(4096, 576, 3072), Some("warp_specialised_128x256_beside_r16"));
    assert_eq!(many(512, 4096, 4096), Some("warp_specialised_128x128_stacked_r16"));
    assert_eq!(many(1024, 4096, 4096), Some("warp_specialised_128x256_beside_r16"));
    // Those that tests/gpu.rs runs.
    assert_eq!(many(500, 520, 2040), Some("warp_specialised_128x64_beside_r16"));
    assert_eq!(many(2000, 200, 2040), Some("warp_specialised_128x256_beside_r16"));
    assert_eq!(many(500, 1544, 4000), Some("warp_specialised_128x128_stacked_r16"));
}

#[test]
fn a_product_takes_the_tile_that_was_fastest_too() {
    let tile = |m, n, k, turned: bool| {
        let op = MatMul::new(m, n, k, DType::BF16);
        let op = Op::from(if turned { op } else { op.trans_b() });
        (sixteen(op, &h100()).unwrap().variant, prefers(&op, &h100()))
    };
    let size = |size, turned| tile(size, size, size, turned);
    assert_eq!(size(256, false), ("warp_specialised_64x32_nt", true));
    assert_eq!(size(256, true), ("warp_specialised_64x64_nn", true));
    assert_eq!(size(512, true), ("warp_specialised_64x64_by_2_nn", true));
    assert_eq!(size(768, true), ("warp_specialised_64x128_nn", true));
    assert_eq!(size(1024, false), ("warp_specialised_64x128_nt", true));
    assert_eq!(size(1024, true), ("warp_specialised_64x128_nn", true));
    assert_eq!(size(2048, true), ("warp_specialised_128x256_nn", false));
    assert_eq!(tile(32, 512, 512, false), ("warp_specialised_64x32_by_4_nt", true));
    assert_eq!(tile(64, 1024, 1024, true), ("warp_specialised_64x64_by_4_nn", true));
    assert_eq!(tile(128, 2048, 2048, true), ("warp_specialised_64x64_by_2_nn", true));
    assert_eq!(tile(1, 4096, 4096, false), ("warp_specialised_64x64_by_2_nt", true));
    assert_eq!(tile(512, 4096, 4096, false), ("warp_specialised_128x128_stacked_nt", false));
}

/// Products of every tile, whose last rows, columns and slices are not whole: tests/gpu.rs runs them.
const RAGGED: [(usize, usize, usize); 14] = [
    (10, 40, 520),
    (10, 136, 520),
    (10, 4000, 520),
    (10, 4000, 1032),
    (33, 1544, 264),
    (100, 776, 264),
    (100, 1544, 136),
    (150, 4000, 72),
    (300, 392, 520),
    (300, 4000, 72),
    (500, 4000, 72),
    (500, 4000, 136),
    (1000, 4000, 72),
    (1000, 2040, 2056),
];

#[test]
fn the_products_that_a_gpu_checks_take_every_tile() {
    let mut seen = HashSet::new();
    for (m, n, k) in RAGGED {
        let op = MatMul::new(m, n, k, DType::BF16);
        seen.extend([op, op.trans_b()].map(|op| sixteen(op, &h100()).unwrap().variant));
    }
    let missed = warp_specialised::TILES.iter().map(|tile| tile.name).filter(|name| name.contains("_n"));
    assert_eq!(missed.filter(|name| !seen.contains(name)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn a_products_tensor_maps_are_its_operands() {
    let mut seen = HashSet::new();
    for (m, n, k, turned) in
        [(1, 8, 8, false), (70, 40, 72, true), (1000, 1000, 584, false), (500, 2040, 520, true), (600, 136, 40, true)]
    {
        let plain = MatMul { lda: k + 16, ldc: n + 8, ..MatMul::new(m, n, k, DType::F16) };
        let op = if turned { MatMul { ldb: n + 24, ..plain } } else { plain.trans_b() };
        let product = |op: &MatMul| warp_specialised::Product::matmul(op, &Op::from(*op).operands().unwrap());
        let none = [
            op.scaled(1.0, 1.0),
            op.scaled(2.0, 0.0),
            op.batched(2),
            MatMul { ldc: n + 4, ..op },
            MatMul { lda: k + 4, ..op },
        ];
        assert!(none.iter().all(|op| product(op).is_none()), "left to other engines");
        let found = product(&op).unwrap();
        for tile in warp_specialised::TILES.iter().filter(|tile| found.fits(tile)) {
            assert!(tile.rank == 0 && tile.turned == turned);
            let program = found.program(tile);
            let launch = &program.launches[0];
            let [x, y, _] = launch.grid.map(|blocks| blocks as usize);
            let tiles = m.div_ceil(tile.rows as usize) * n.div_ceil(tile.cols as usize);
            assert!(x * y == tiles * tile.cluster as usize && x.is_multiple_of(tile.blocks() as usize));
            assert!(program.workspace_bytes == 0 && !program.counts && launch.bindings.len() == 1);
            let [a, b] = launch.maps.as_slice() else { panic!("{} maps", launch.maps.len()) };
            assert_eq!((a.lines, a.columns, a.stride), (m as u64, k as u64, (k + 16) as u64));
            let b_size = if turned { (k, n, n + 24) } else { (n, k, k) };
            assert_eq!((b.lines, b.columns, b.stride), (b_size.0 as u64, b_size.1 as u64, b_size.2 as u64));
            // Bytes that fill a slice: A's lines, and of B whole stripes of 64 columns, or lines.
            let copied = u32::from_ne_bytes(launch.params[24..28].try_into().unwrap());
            let halves = if tile.pairs == Pairs::Stacked { 2 } else { 1 };
            let of_b = if turned { tile.cols / 64 * b.tile } else { halves * b.tile };
            assert_eq!(copied, (a.tile + of_b) * 128);
            assert!(a.tile == tile.rows.min(m as u32) && if turned { b.tile == 64 } else { b.tile <= 256 });
            seen.insert((tile.pairs, turned));
        }
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[test]
fn loras_backward_is_two_launches_that_cover_rows_and_columns() {
    for (rows, ins, outs, rank) in [(1, 8, 8, 8), (77, 200, 136, 16), (1024, 576, 192, 16), (5000, 576, 1536, 32)] {
        let layer = LoraLinear::new(rows, ins, outs, rank, 2.0, DType::BF16);
        let delta = LoraDelta::new(rows, ins, outs, rank, 2.0, DType::BF16);
        let alone = sixteen(Op::LoraDeltaBackward(delta), &h100()).unwrap();
        let [hidden, gradients] = alone.launches.as_slice() else { panic!("{} launches", alone.launches.len()) };
        let tile = |launch: &Launch| -> Vec<usize> {
            let numbers = launch.entry.split(['_', 'r']).filter_map(|part| part.parse().ok());
            numbers.collect()
        };
        let [block, of_rank] = tile(hidden)[..] else { panic!("{}", hidden.entry) };
        assert!(of_rank == rank && hidden.grid[0] as usize * block >= rows && hidden.grid[1] == 2);
        assert!(alone.workspace_bytes as usize >= 2 * 2 * rows.next_multiple_of(16) * rank);
        let [cols, of_rank] = tile(gradients)[..] else { panic!("{}", gradients.entry) };
        let sums = (ins.div_ceil(cols) + outs.div_ceil(cols)) * gradients.cluster as usize;
        let dx = rows.div_ceil(128) * ins.div_ceil(64);
        assert!(of_rank == rank && gradients.grid[0] as usize >= sums + dx);
        assert!(gradients.grid[0].is_multiple_of(gradients.cluster));
        // Behind the product dx is added to; `layers` and `adds_dx` stand last.
        let last = |program: &Program| -> Vec<[u8; 2]> {
            program.launches.iter().map(|launch| [launch.params[56], launch.params[60]]).collect()
        };
        let behind = behind_products(&[layer], false, &h100()).unwrap();
        assert_eq!((last(&alone), last(&behind)), (vec![[1, 0]; 2], vec![[1, 1]; 2]));
        // Two layers of one x: twice the blocks, but for dx, and twice the workspace.
        let other = LoraLinear::new(rows, ins, 2 * outs, rank, 1.0, DType::BF16);
        let both = behind_products(&[layer, other], false, &h100()).unwrap();
        assert_eq!(last(&both), vec![[2, 1]; 2]);
        let more = (ins.div_ceil(cols) + (2 * outs).div_ceil(cols)) * gradients.cluster as usize;
        let grids = both.launches.iter().map(|launch| launch.grid).collect::<Vec<_>>();
        assert_eq!(grids, [[hidden.grid[0], 4, 1], [gradients.grid[0] + more as u32, 1, 1]]);
        assert_eq!(both.workspace_bytes, 2 * behind.workspace_bytes);
        // With h from the forward half of the blocks that make it and dh, and the same workspace.
        let kept = behind_products(&[layer, other], true, &h100()).unwrap();
        assert_eq!(kept.launches[0].grid, [hidden.grid[0], 2, 1]);
        assert_eq!(kept.launches[1].grid, both.launches[1].grid);
        let lies = kept_hidden(&[layer, other], &h100()).unwrap();
        assert_eq!(lies.rows as usize, rows.next_multiple_of(block));
        assert_eq!((lies.bytes, 4 * lies.apart), (both.workspace_bytes, both.workspace_bytes));
        assert!(behind_products(&[layer, LoraLinear { x_row: ins + 8, ..other }], false, &h100()).is_none());
        assert!(prefers(&Op::LoraDeltaBackward(delta), &h100()));
    }
    let runs = |op: LoraLinear, chip: &Chip| behind_products(&[op], false, chip).is_some();
    let layer = LoraLinear::new(1024, 576, 576, 16, 2.0, DType::BF16);
    assert!(runs(layer, &h100()) && runs(layer, &a100()));
    assert!(!runs(LoraLinear { dtype: DType::F16, ..layer }, &h100()));
    assert!(!runs(LoraLinear { rank: 12, ..layer }, &h100()));
    assert!(!runs(LoraLinear { y_row: 580, ..layer }, &h100()));
    assert!(!runs(LoraLinear::new(1024, 572, 576, 16, 2.0, DType::BF16), &h100()));
    assert!(!runs(LoraLinear::new(0, 576, 576, 16, 2.0, DType::BF16), &h100()));
}

#[test]
fn a_chip_without_clusters_leaves_long_sums_to_blocks_too() {
    let gradients = |chip: &Chip| {
        let op = LoraDelta::new(4096, 576, 576, 16, 1.0, DType::BF16);
        sixteen(Op::LoraDeltaBackward(op), chip).unwrap().launches[1].entry
    };
    assert_eq!(gradients(&h100()), "lora_gradients_64_r16");
    assert_eq!(gradients(&a100()), "lora_gradients_32_r16");
}

#[test]
fn small_work_is_preferred_and_large_work_left_to_the_library() {
    let prefers = |op: Op| prefers(&op, &h100());
    assert!(prefers(LoraLinear::new(64, 1024, 1024, 16, 1.0, DType::BF16).into()));
    assert!(!prefers(LoraLinear::new(4096, 4096, 4096, 16, 1.0, DType::BF16).into()));
    assert!(prefers(MatMul::new(256, 256, 256, DType::BF16).into()));
    assert!(prefers(MatMul::new(1024, 1024, 1024, DType::BF16).into()));
    assert!(!prefers(MatMul::new(4096, 4096, 4096, DType::BF16).into()));
    assert!(prefers(LoraDelta::new(512, 4096, 4096, 16, 1.0, DType::BF16).into()));
    assert!(!prefers(LoraDelta::new(1024, 576, 576, 16, 1.0, DType::BF16).into()));
}

#[test]
fn clusters_and_the_warpgroups_instruction_are_hoppers() {
    for size in [64, 512, 4096] {
        let op = LoraLinear::new(size, size, size, 16, 1.0, DType::BF16);
        assert_eq!(sixteen(op, &a100()).unwrap().launches[0].cluster, 1);
        let later = Chip { capability: (10, 0), ..h100() };
        let program = sixteen(op, &later).unwrap();
        assert!(PRODUCTS.iter().any(|tile| tile.name == program.variant && !tile.grouped));
    }
    assert!(sixteen(LoraDelta::new(32, 512, 512, 8, 1.0, DType::BF16), &a100()).is_none());
    assert!(sixteen(MatMul::new(64, 64, 64, DType::BF16), &Chip { capability: (7, 5), ..a100() }).is_none());
}

#[test]
fn what_the_kernels_cannot_read_is_left_to_others() {
    let chip = h100();
    let layer = LoraLinear::new(32, 512, 512, 8, 1.0, DType::BF16);
    assert!(sixteen(layer, &chip).is_some());
    assert!(program(&layer.into(), &chip, Alignment::Element).is_none());
    assert!(sixteen(LoraLinear { dtype: DType::F32, ..layer }, &chip).is_none());
    assert!(sixteen(LoraLinear { x_row: 513, ..layer }, &chip).is_none());
    assert!(sixteen(LoraLinear::new(32, 510, 512, 8, 1.0, DType::BF16), &chip).is_none());
    assert!(sixteen(LoraLinear::new(32, 512, 512, 65, 1.0, DType::BF16), &chip).is_none());
    assert!(sixteen(LoraLinear::new(0, 512, 512, 8, 1.0, DType::BF16), &chip).is_none());
    assert!(sixteen(Op::LoraLinearBackward(layer), &chip).is_none());
    assert!(sixteen(LoraDelta::new(32, 510, 512, 8, 1.0, DType::F16), &chip).is_none());
    let product = MatMul::new(64, 64, 64, DType::F16).batched(3);
    assert!(sixteen(product, &chip).is_some());
    let summed = MatMul { batch: Batch { c: [0; 3], ..product.batch }, ..product };
    assert!(sixteen(summed, &chip).is_none());
}

#[test]
fn attention_runs_where_heads_fit_and_is_preferred_where_queries_are_many() {
    let op = Attention { sequences: 4, ..Attention::new(1024, 1024, 9, 3, 64, DType::BF16) };
    // Three heads share keys: on a chip with clusters they are three blocks.
    for (chip, cluster) in [(h100(), 3), (a100(), 1)] {
        assert_eq!(sixteen(op, &chip).unwrap().launches[0].grid, [16 * 9, 1, 1]);
        let backward = sixteen(Op::AttentionBackward(op), &chip).unwrap().launches.remove(0);
        assert_eq!((backward.grid, backward.cluster), ([16 * 9 + 16 * 3 * cluster, 1, 1], cluster));
    }
    // Eleven heads are six blocks' of two each, and the grid is whole clusters.
    let eleven = Attention::new(64, 64, 11, 1, 64, DType::BF16);
    let backward = sixteen(Op::AttentionBackward(eleven), &h100()).unwrap().launches.remove(0);
    assert_eq!((backward.grid, backward.cluster), ([6 + 12, 1, 1], 6));
    assert!(prefers(&op.into(), &h100()));
    assert!(!prefers(&Attention { sequences: 4, ..Attention::new(4, 4096, 9, 3, 64, DType::BF16) }.into(), &h100()));
    let runs = |op: Attention| sixteen(op, &h100()).is_some();
    assert!(runs(Attention { dtype: DType::F16, ..op }) && runs(Attention::new(70, 200, 6, 2, 80, DType::BF16)));
    assert!(!runs(Attention { dtype: DType::F32, ..op }));
    assert!(!runs(Attention::new(70, 200, 6, 2, 136, DType::BF16)));
    assert!(!runs(Attention::new(70, 200, 6, 2, 33, DType::BF16)));
    assert!(!runs(Attention { k_row: 196, ..op }));
    assert!(sixteen(Op::AttentionBackward(Attention { dtype: DType::F16, ..op }), &h100()).is_none());
}

#[test]
fn attention_takes_the_warpgroups_instruction_on_hopper_alone() {
    let later = Chip { capability: (10, 0), ..h100() };
    let packed = |sequences, length| {
        let tokens = sequences * length;
        Attention { sequences, ..Attention::new(tokens, tokens, 9, 3, 64, DType::BF16) }
    };
    let backward = |op: Attention, chip: &Chip| sixteen(Op::AttentionBackward(op), chip).unwrap().variant;
    for chip in [a100(), later] {
        assert_eq!(sixteen(packed(8, 512), &chip).unwrap().variant, "attention_64_mma");
        assert_eq!(backward(packed(8, 512), &chip), "attention_backward_64_mma");
    }
    let launch = sixteen(packed(8, 512), &h100()).unwrap().launches.remove(0);
    assert_eq!((launch.entry, launch.grid[0], launch.threads), ("attention_64", 64 * 9, 128));
    // As was measured.
    assert_eq!(backward(packed(8, 512), &h100()), "attention_backward_64");
    assert_eq!(backward(packed(1, 2048), &h100()), "attention_backward_64_few");
    assert_eq!(backward(packed(4, 256), &h100()), "attention_backward_64_few");
    let wide = Attention { sequences: 8, ..Attention::new(4096, 4096, 9, 3, 128, DType::BF16) };
    assert_eq!(sixteen(wide, &h100()).unwrap().variant, "attention_128");
    assert_eq!(backward(wide, &h100()), "attention_backward_128");
    let narrow = Attention::new(512, 512, 9, 3, 64, DType::F16);
    assert_eq!(sixteen(narrow, &h100()).unwrap().variant, "attention_64");
}

#[test]
fn the_text_says_which_instance_it_is() {
    let launch = sixteen(LoraLinear::new(1, 512, 512, 8, 1.0, DType::F16), &h100()).unwrap().launches.remove(0);
    assert!(matches!(launch.source, Source::Own(_)));
    let text = launch.source.text();
    for line in [
        "#define NAME lora_16x16_r8",
        "#define ELEMENT f16",
        "#define TILE 16, 16, 8, 1, 1, 8, 128, 5, 1, false, false, false",
    ] {
        assert!(text.contains(line), "{line} in {}", &text[..300]);
    }
    assert!(text.contains(&format!("#define SHARED_BYTES {}\n", launch.shared_bytes)));
}
