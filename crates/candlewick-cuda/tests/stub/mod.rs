//! Libraries that stand in for NVIDIA's, in a folder of each test's own: `stub.c`, compiled once.

#![allow(dead_code)] // Each test uses a part of it.

use candlewick_cuda::{CacheFolder, Device, Options};
use libloading::Library;
use std::ffi::{CStr, CString, c_char, c_int};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Which library.
#[derive(Clone, Copy, Debug)]
pub enum Lib {
    Cuda,
    Nvrtc,
    CublasLt,
}

/// What the driver keeps count of.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Allocations,
    Streams,
    Events,
    Modules,
    Graphs,
    Pinned,
    Contexts,
    Objects,
}

/// A launch as the driver got it. For a product: what it computes in as `threads`, the alignment that its algorithm is for
/// as `shared`, then A, B and C.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    name: *const c_char,
    pub grid: [u32; 3],
    pub threads: u32,
    pub shared: u32,
    pub attributes: u32,
    pub stream: u64,
    pub arguments: [u64; 9],
    /// It was recorded, and has not run.
    pub recorded: c_int,
}

impl Launch {
    pub fn name(&self) -> &str {
        // SAFETY: the stub's names end with a zero.
        unsafe { CStr::from_ptr(self.name) }.to_str().unwrap()
    }
}

/// A set of stand-ins.
pub struct Stub {
    folder: TempDir,
    /// Where the real compiler is, if it is used.
    nvrtc: Option<PathBuf>,
    libraries: Vec<Library>,
}

impl Stub {
    /// All three. `None` where there is no C compiler, which is said.
    pub fn all() -> Option<Stub> {
        Self::of(&[Lib::Cuda, Lib::Nvrtc, Lib::CublasLt])
    }

    /// Some of them.
    pub fn of(libraries: &[Lib]) -> Option<Stub> {
        let Some(built) = built() else {
            println!("not run: no C compiler");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let place = |&lib: &Lib| {
            let path = folder.path().join(match lib {
                Lib::Cuda => "libcuda.so.1",
                Lib::Nvrtc => "libnvrtc.so.13",
                Lib::CublasLt => "libcublasLt.so.13",
            });
            std::fs::copy(built, &path).unwrap();
            // SAFETY: loading it runs nothing.
            unsafe { Library::new(path) }.unwrap()
        };
        let libraries = libraries.iter().map(place).collect();
        Some(Stub { folder, libraries, nvrtc: None })
    }

    /// A stand-in for the driver, and the real compiler. `None` where there is none, which is said.
    pub fn with_nvrtc() -> Option<Stub> {
        let named = std::env::var_os("CANDLEWICK_CUDA_LIBS")
            .map_or_else(Vec::new, |folders| std::env::split_paths(&folders).collect());
        // Where scripts/check-cuda.sh installs it.
        let wheels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/nvrtc/lib");
        let wheels = entries(&wheels).into_iter().map(|python| python.join("site-packages/nvidia"));
        let folders = wheels.flat_map(|wheels| entries(&wheels)).map(|wheel| wheel.join("lib")).chain(named);
        let is_nvrtc =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libnvrtc.so."));
        let Some(nvrtc) = folders.flat_map(|folder| entries(&folder)).find(is_nvrtc) else {
            println!("not run: no NVRTC (scripts/check-cuda.sh installs it)");
            return None;
        };
        let mut stub = Self::of(&[Lib::Cuda])?;
        stub.nvrtc = nvrtc.parent().map(Path::to_path_buf);
        Some(stub)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn cache(&self) -> PathBuf {
        self.folder().join("cache")
    }

    /// Options that find these stand-ins alone.
    pub fn options(&self) -> Options {
        Options {
            libraries: Some([self.folder()].into_iter().chain(self.nvrtc.as_deref()).map(Path::to_path_buf).collect()),
            cache: CacheFolder::At(self.cache()),
            ..Options::default()
        }
    }

    pub fn open(&self) -> Device {
        Device::with_options(0, self.options()).unwrap()
    }

    /// A function of a library, with the signature that it has in stub.c.
    fn function<F: Copy>(&self, lib: Lib, name: &str) -> F {
        // SAFETY: the callers below name the signatures of stub.c.
        unsafe { *self.libraries[lib as usize].get::<F>(name.as_bytes()).unwrap() }
    }

    /// Calls of one of the libraries, in order.
    pub fn calls_of(&self, lib: Lib) -> Vec<String> {
        let count = self.function::<extern "C" fn() -> c_int>(lib, "stub_calls")();
        let call = self.function::<extern "C" fn(c_int) -> *const c_char>(lib, "stub_call");
        // SAFETY: names end with a zero and are never freed.
        (0..count).map(|i| unsafe { CStr::from_ptr(call(i)) }.to_str().unwrap().to_string()).collect()
    }

    /// Calls of the driver.
    pub fn calls(&self) -> Vec<String> {
        self.calls_of(Lib::Cuda)
    }

    pub fn launches_of(&self, lib: Lib) -> Vec<Launch> {
        let count = self.function::<extern "C" fn() -> c_int>(lib, "stub_launches")();
        let launch = self.function::<extern "C" fn(c_int) -> Launch>(lib, "stub_launch");
        (0..count).map(|i| launch(i)).collect()
    }

    /// Launches, as the driver got them.
    pub fn launches(&self) -> Vec<Launch> {
        self.launches_of(Lib::Cuda)
    }

    /// Forgets calls and launches.
    pub fn clear(&self) {
        for lib in [Lib::Cuda, Lib::Nvrtc, Lib::CublasLt].into_iter().take(self.libraries.len()) {
            self.function::<extern "C" fn()>(lib, "stub_clear")();
        }
    }

    pub fn live(&self, lib: Lib, kind: Kind) -> i32 {
        self.function::<extern "C" fn(c_int) -> c_int>(lib, "stub_live")(kind as c_int)
    }

    /// The `nth` call of `name` from now on returns `code`.
    pub fn fail(&self, lib: Lib, name: &str, nth: i32, code: i32) {
        let name = CString::new(name).unwrap();
        self.function::<extern "C" fn(*const c_char, c_int, c_int)>(lib, "stub_fail")(name.as_ptr(), nth, code);
    }

    /// Every call of the driver returns this code from now on.
    pub fn break_with(&self, code: i32) {
        self.function::<extern "C" fn(c_int)>(Lib::Cuda, "stub_break")(code);
    }

    /// No stream gets on, until somebody sleeps for one.
    pub fn hold(&self, hold: bool) {
        self.function::<extern "C" fn(c_int)>(Lib::Cuda, "stub_hold")(hold.into());
    }

    /// How many arguments of a launch are numbers of 64 bits, to be remembered.
    pub fn read_arguments(&self, count: i32) {
        self.function::<extern "C" fn(c_int)>(Lib::Cuda, "stub_read_arguments")(count);
    }

    pub fn set_memory(&self, bytes: u64) {
        self.function::<extern "C" fn(u64)>(Lib::Cuda, "stub_set_memory")(bytes);
    }

    pub fn set_device(&self, gpus: i32, major: i32, minor: i32) {
        self.function::<extern "C" fn(c_int, c_int, c_int)>(Lib::Cuda, "stub_set_device")(gpus, major, minor);
    }

    pub fn set_versions(&self, lib: Lib, driver: i32, nvrtc: i32) {
        self.function::<extern "C" fn(c_int, c_int)>(lib, "stub_set_versions")(driver, nvrtc);
    }

    /// Everything that was taken from the driver was given back.
    pub fn assert_clean(&self) {
        use Kind::*;
        for kind in [Allocations, Streams, Events, Modules, Graphs, Pinned, Contexts] {
            assert_eq!(self.live(Lib::Cuda, kind), 0, "{kind:?} left");
        }
        for lib in [Lib::Nvrtc, Lib::CublasLt].into_iter().filter(|&lib| self.libraries.len() > lib as usize) {
            assert_eq!(self.live(lib, Objects), 0, "objects of {lib:?} left");
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    folder.read_dir().map_or_else(|_| Vec::new(), |entries| entries.flatten().map(|entry| entry.path()).collect())
}

/// The stand-in, compiled once per text of it.
fn built() -> Option<&'static PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let mut hasher = DefaultHasher::new();
        SOURCE.hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let to = folder.join(format!("cuda_stub_{:016x}.so", hasher.finish()));
        if to.exists() {
            return Some(to);
        }
        let own = folder.join(format!("cuda_stub_{}.c", std::process::id()));
        std::fs::write(&own, SOURCE).unwrap();
        let library = own.with_extension("so");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let mut command = Command::new(compiler);
        let status = command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&own).arg("-lpthread").status();
        let _ = std::fs::remove_file(&own);
        assert!(status.as_ref().ok()?.success(), "stub.c does not compile");
        // Other test binaries build it too: whoever is last wins, with the same.
        std::fs::rename(library, &to).unwrap();
        Some(to)
    };
    BUILT.get_or_init(build).as_ref()
}

const SOURCE: &str = include_str!("stub.c");
