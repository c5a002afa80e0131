//! Arithmetic, types and functions of the language.

mod support;

use support::{Buffer, Run, clean, kernel};

/// Runs one thread that fills a buffer of 64 numbers.
fn floats(body: &str) -> Vec<f32> {
    let kernel = kernel(&format!("kernel void f(device float* o) {{ {body} }}"));
    let mut buffers = [Buffer::of(&[0f32; 64])];
    clean(Run::new(&kernel).threads(1, 1, &mut buffers));
    buffers[0].elements()
}

fn uints(body: &str) -> Vec<u32> {
    floats(&format!("device uint* u = (device uint*)o; {body}")).iter().map(|x| x.to_bits()).collect()
}

#[test]
fn swizzles_read_and_write() {
    let o = floats(
        "float4 a = float4(1, 2, 3, 4); a.xy += a.zw; a.bgr = a.rgb; float3 b = a.wzy; a.hi = a.lo.yx; a.w++;
         for (int i = 0; i < 4; i++) o[i] = a[i];
         for (int i = 0; i < 3; i++) o[4 + i] = b[i];
         o[7] = float2(5, 6).xyxy.z;",
    );
    assert_eq!(o[..8], [3.0, 6.0, 6.0, 4.0, 4.0, 4.0, 6.0, 5.0]);
}

#[test]
fn swizzles_in_templates() {
    let kernel = kernel(
        "struct Pair { float ab; };
         template <typename T> kernel void f(device T* o) {
           vec<T, 4> a = vec<T, 4>(1, 2, 3, 4); a.zw *= a.xy + a.gr; Pair p = {5}; o[0] = (a.wzyx * a.xyzw).r; o[1] = p.ab * a.a;
         }
         template [[host_name(\"f\")]] kernel void f<float>(device float* o);",
    );
    let mut buffers = [Buffer::of(&[0f32; 2])];
    clean(Run::new(&kernel).threads(1, 1, &mut buffers));
    assert_eq!(buffers[0].elements::<f32>(), [12.0, 60.0]);
}

#[test]
fn vectors_are_built_converted_and_compared() {
    let o = floats(
        "float4 a = float4(float2(1, 2), 3, 4); half4 h = half4(a) * 2.0h; int4 i = int4(h);
         bool4 less = i < int4(5); float3 s = select(float3(0), float3(9), less.xyz);
         o[0] = a.w; o[1] = i.w; o[2] = any(less); o[3] = all(less); o[4] = s.x; o[5] = s.z;
         o[6] = dot(a, float4(1)); o[7] = length(float2(3, 4)); o[8] = cross(float3(1, 0, 0), float3(0, 1, 0)).z;
         o[9] = sizeof(float3); o[10] = sizeof(packed_float3); o[11] = alignof(packed_float3); o[12] = sizeof(half3);
         packed_float3 p = packed_float3(1, 2, 3); p += 1; o[13] = float3(p).z * p[0];",
    );
    assert_eq!(o[..14], [4.0, 8.0, 1.0, 0.0, 9.0, 0.0, 10.0, 5.0, 1.0, 16.0, 12.0, 4.0, 8.0, 8.0]);
}

#[test]
fn half_and_bfloat_round_after_every_operation() {
    let o = floats(
        "volatile half h = 2048.0h; o[0] = h + 1.0h; o[1] = float(half(65504.0f) * 2.0h);
         volatile bfloat b = 256.0bf; o[2] = float(b + bfloat(1.0f)); o[3] = float(static_cast<bfloat>(h));
         o[4] = float(numeric_limits<half>::max()); o[5] = float(numeric_limits<bfloat>::epsilon());
         bfloat4 v = bfloat4(1, 2, 3, 4); o[6] = float((v + v).w); o[7] = 1.0 / 3.0;",
    );
    assert_eq!(o[..8], [2048.0, f32::INFINITY, 256.0, 2048.0, 65504.0, 0.0078125, 8.0, 1.0 / 3.0]);
}

#[test]
fn math_agrees_with_rust() {
    let o = floats(
        "volatile float x = 0.7f; o[0] = exp(x); o[1] = fast::log(x); o[2] = precise::tanh(x); o[3] = rsqrt(x);
         o[4] = pow(x, 3.0f); o[5] = erf(x); o[6] = atan2(x, 2.0f); o[7] = fmod(5.5f, x); o[8] = sign(-x);
         o[9] = fract(-x); o[10] = clamp(x, 0.0f, 0.5f); o[11] = mix(1.0f, 3.0f, x); o[12] = smoothstep(0.0f, 1.0f, x);
         o[13] = fma(x, 2.0f, 1.0f); o[14] = max(x, NAN); o[15] = round(2.5f); o[16] = rint(2.5f); o[17] = sinpi(1.0f);
         float c; o[18] = sincos(x, c); o[19] = c; o[20] = ldexp(x, 3); o[21] = saturate(2.0f * x);",
    );
    let x = 0.7f32;
    let expected = [
        x.exp(),
        x.ln(),
        x.tanh(),
        1.0 / x.sqrt(),
        x.powi(3),
        0.677_801_2,
        x.atan2(2.0),
        5.5 % x,
        -1.0,
        0.3,
        0.5,
        2.4,
        0.784,
        2.4,
        x,
        3.0,
        2.0,
        0.0,
        x.sin(),
        x.cos(),
        5.6,
        1.0,
    ];
    for (i, (got, expected)) in o.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= 1e-6, "{i}: {got} for {expected}");
    }
}

#[test]
fn integer_functions() {
    let u = uints(
        "u[0] = popcount(0xF0F0u); u[1] = clz(1u); u[2] = ctz(8u); u[3] = clz(0u); u[4] = reverse_bits(1u);
         u[5] = rotate(0x80000001u, 1u); u[6] = mulhi(0xFFFFFFFFu, 2u); u[7] = addsat(0xFFFFFFFFu, 5u);
         u[8] = subsat(3u, 5u); u[9] = uint(addsat(2147483647, 5)); u[10] = extract_bits(0xABCDu, 4, 8);
         u[11] = uint(extract_bits(0xF0, 4, 4)); u[12] = insert_bits(0u, 0x5u, 8, 4); u[13] = absdiff(3, -4);
         u[14] = clz(ushort(1)); u[15] = hadd(0xFFFFFFFFu, 0xFFFFFFFDu); u[16] = as_type<uint>(1.0f);
         u[17] = uint(abs(-5)); u[18] = uint(mulhi(-1, 1)); u[19] = rotate(7u, 0u); u[20] = uint(max3(1, 5, 3));",
    );
    let expected = [
        8,
        31,
        3,
        32,
        0x8000_0000,
        3,
        1,
        0xFFFF_FFFF,
        0,
        0x7FFF_FFFF,
        0xBC,
        0xFFFF_FFFF,
        0x500,
        7,
        15,
        0xFFFF_FFFE,
        0x3F80_0000,
        5,
        0xFFFF_FFFF,
        7,
        5,
    ];
    assert_eq!(u[..expected.len()], expected);
}

#[test]
fn matrices_arrays_and_packing() {
    let o = floats(
        "float2x2 m = float2x2(float2(1, 2), float2(3, 4)); float2 v = m * float2(1, 1); float2 w = float2(1, 1) * m;
         o[0] = v.x; o[1] = v.y; o[2] = w.x; o[3] = w.y; o[4] = determinant(m); o[5] = (m * m)[1][0];
         o[6] = transpose(m)[0].y; metal::array<float, 3> a = {1, 2, 3}; o[7] = a[2] + a.size();
         o[8] = unpack_unorm4x8_to_float(pack_float_to_unorm4x8(float4(0, 1, 0.5, 1))).y;
         float4x4 i = float4x4(2.0f); o[9] = i[3][3] + i[3][2]; o[10] = determinant(i);",
    );
    assert_eq!(o[..11], [4.0, 6.0, 3.0, 7.0, -2.0, 15.0, 3.0, 6.0, 1.0, 2.0, 16.0]);
}

#[test]
fn the_macros_of_the_language_version() {
    let source = "#if defined(__METAL__) && __METAL_VERSION__ == 310 && defined(__HAVE_BFLOAT__) && WIDTH == 3\nkernel void yes() {}\n#endif";
    let with = |version| emulator_msl::Options {
        language_version: version,
        macros: vec![("WIDTH".to_owned(), "3".to_owned())],
        ..support::options()
    };
    assert_eq!(emulator_msl::compile(source, &with((3, 1))).unwrap().function_names().count(), 1);
    assert_eq!(emulator_msl::compile(source, &with((3, 0))).unwrap().function_names().count(), 0);
}
