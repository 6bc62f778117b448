//! The cache and the worker behind it, with the real daemon binary as worker.

use crate::kernels::{Elf, PACKED, bzimage, payload};
use dom0_agent::image::error::Role;
use dom0_agent::image::limits::CACHE_ENTRIES;
use dom0_agent::image::{
    Fault, Format, ImageError, Initrd, KernelCache, KernelMeta, LoadedKernel, WORKER_ARGUMENT,
    Worker,
};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const DAEMON: &str = env!("CARGO_BIN_EXE_dom0-agent");

/// What a load gave.
struct Loaded {
    warm: bool,
    text: Vec<u8>,
    meta: KernelMeta,
}

struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn cache(&self) -> KernelCache {
        KernelCache::with_worker(&self.cache_directory(), Worker::of(Path::new(DAEMON)))
    }

    fn cache_directory(&self) -> PathBuf {
        self.directory.path().join("cache/kernels")
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn kernel(&self, name: &str) -> PathBuf {
        self.file(
            name,
            &bzimage(&payload(Format::Zstd, &Elf::debian().build())),
        )
    }

    /// Loads as a process of its own would; answers after the cache is written.
    fn load(&self, path: &Path) -> Loaded {
        let cache = self.cache();
        let loaded = cache
            .load(path)
            .map(|kernel| (kernel.is_warm(), text_of(&kernel), kernel.meta().clone()));
        let (warm, text, meta) = loaded.unwrap();
        Loaded { warm, text, meta }
    }

    fn cached(&self, extension: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.cache_directory()).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|found| found == extension));
        paths
    }
}

fn text_of(kernel: &LoadedKernel) -> Vec<u8> {
    let segment = kernel.meta().segments[0];
    let mut bytes = vec![0; segment.file_size as usize];
    kernel.read_at(&mut bytes, segment.file_offset).unwrap();
    bytes
}

#[test]
fn the_second_load_is_warm_and_the_same() {
    let world = World::new();
    let path = world.kernel("vmlinuz");
    let (cold, warm) = (world.load(&path), world.load(&path));
    assert!(!cold.warm && warm.warm);
    assert!(cold.text == Elf::debian().loads[0].1 && cold.text == warm.text);
    assert_eq!(
        (&cold.meta.notes, cold.meta.class),
        (&warm.meta.notes, warm.meta.class)
    );
    let leftovers = fs::read_dir(world.cache_directory()).unwrap().count();
    assert_eq!(leftovers, 2, "an image and its metadata, nothing temporary");
}

#[test]
fn a_kernel_in_use_is_not_unpacked_twice() {
    let world = World::new();
    let path = world.kernel("vmlinuz");
    let cache = world.cache();
    let first = cache.load(&path).unwrap();
    let second = cache.load(&path).unwrap();
    assert!(!first.is_warm() && second.is_warm());
    assert!(
        !world.cache_directory().exists(),
        "nobody waits for the disk"
    );
    drop(first);
    cache.settle();
    assert!(text_of(&second) == text_of(&cache.load(&path).unwrap()));
    assert_eq!(world.cached("image").len(), 1);
}

#[test]
fn a_changed_kernel_is_unpacked_again() {
    let world = World::new();
    let path = world.kernel("vmlinuz");
    world.load(&path);
    let mut other = Elf::debian();
    other.loads[0].1[0] ^= 0xff;
    fs::write(&path, bzimage(&payload(Format::Gzip, &other.build()))).unwrap();
    let loaded = world.load(&path);
    assert!(!loaded.warm && loaded.text == other.loads[0].1);
    assert!(world.load(&path).text == other.loads[0].1);
}

#[test]
fn every_format_comes_through_the_worker() {
    let world = World::new();
    let elf = Elf::debian().build();
    for format in PACKED {
        let path = world.file(
            &format!("vmlinuz-{format}"),
            &bzimage(&payload(format, &elf)),
        );
        let (cold, warm) = (world.load(&path), world.load(&path));
        assert_eq!(
            (cold.warm, warm.warm, cold.meta.format),
            (false, true, format)
        );
        assert!(
            cold.text == Elf::debian().loads[0].1 && cold.text == warm.text,
            "{format}"
        );
    }
    let plain = world.file("vmlinux", &elf);
    assert!(world.load(&plain).text == Elf::debian().loads[0].1);
}

#[test]
fn a_damaged_entry_is_ignored_and_rebuilt() {
    let world = World::new();
    let path = world.kernel("vmlinuz");
    let damages: [fn(&Path, &Path); 5] = [
        |image, _| fs::write(image, b"other bytes").unwrap(),
        |image, _| fs::remove_file(image).unwrap(),
        |_, meta| fs::write(meta, b"").unwrap(),
        |_, meta| {
            let mut bytes = fs::read(meta).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(meta, bytes).unwrap();
        },
        |image, _| {
            // Same size, same bytes even, but written by somebody else.
            let bytes = fs::read(image).unwrap();
            fs::remove_file(image).unwrap();
            fs::write(image, bytes).unwrap();
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        world.load(&path);
        assert!(world.load(&path).warm, "before damage {number}");
        damage(&world.cached("image")[0], &world.cached("meta")[0]);
        let loaded = world.load(&path);
        assert!(!loaded.warm, "damage {number} was not seen");
        assert!(loaded.text == Elf::debian().loads[0].1);
    }
}

#[test]
fn the_cache_is_bounded_and_forgets_the_oldest() {
    let world = World::new();
    let first = world.kernel("vmlinuz-first");
    world.load(&first);
    for number in 0..CACHE_ENTRIES - 1 {
        world.load(&world.kernel(&format!("vmlinuz-{number}")));
    }
    // Used again: no longer the oldest.
    assert!(world.load(&first).warm);
    world.load(&world.kernel("vmlinuz-last"));
    assert_eq!(world.cached("meta").len(), CACHE_ENTRIES);
    assert_eq!(world.cached("image").len(), CACHE_ENTRIES);
    assert!(world.load(&first).warm);
    assert!(!world.load(&world.directory.path().join("vmlinuz-0")).warm);
}

#[test]
fn a_cache_that_cannot_be_written_costs_only_speed() {
    let world = World::new();
    let path = world.kernel("vmlinuz");
    world.file("cache", b"a file where the directory should be");
    for _ in 0..2 {
        let loaded = world.load(&path);
        assert!(!loaded.warm && loaded.text == Elf::debian().loads[0].1);
    }
}

#[test]
fn bad_kernels_are_named_with_file_and_cause_and_leave_nothing() {
    let world = World::new();
    let good = bzimage(&payload(Format::Zstd, &Elf::debian().build()));
    let cut = world.file("cut", &good[..good.len() - 100]);
    let text = world.file("text", b"not a kernel at all, but long enough to look at");
    let empty = world.file("empty", b"");
    let cases = [
        (
            cut.clone(),
            format!(
                "kernel {} is cut short: its zstd payload ends at byte",
                cut.display()
            ),
        ),
        (
            text.clone(),
            format!("kernel {} is not a kernel", text.display()),
        ),
        (
            empty.clone(),
            format!("kernel {} is empty", empty.display()),
        ),
        (
            PathBuf::from("/nonexistent/vmlinuz"),
            "kernel /nonexistent/vmlinuz does not exist".to_owned(),
        ),
        (
            PathBuf::from("/dev/zero"),
            "kernel /dev/zero is not a regular file".to_owned(),
        ),
        (
            world.directory.path().to_owned(),
            "is not a regular file".to_owned(),
        ),
    ];
    for (path, says) in cases {
        let said = world.cache().load(&path).unwrap_err().to_string();
        assert!(said.contains(&says), "{said}");
    }
    assert!(!world.cache_directory().exists());
}

#[test]
fn a_worker_that_fails_is_one_clear_error() {
    let world = World::new();
    let path = world.kernel("vmlinuz");
    for (program, says) in [
        ("/nonexistent", "the worker could not be run"),
        ("/bin/false", "the worker ended with exit status: 1"),
        ("/bin/true", "the worker ended with exit status: 0"),
    ] {
        let cache =
            KernelCache::with_worker(&world.cache_directory(), Worker::of(Path::new(program)));
        let said = cache.load(&path).unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("vmlinuz"), "{said}");
    }
}

#[test]
fn the_worker_has_given_up_everything_before_it_reads() {
    // A pipe that stays open holds the worker at its first read.
    let mut child = Command::new(DAEMON)
        .arg(WORKER_ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let status = loop {
        let status = fs::read_to_string(proc.join("status")).unwrap();
        if status.contains("Seccomp:\t2") || std::time::Instant::now() > deadline {
            break status;
        }
        std::thread::yield_now();
    };
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(field("Seccomp:"), ["2"]);
    assert_eq!(field("NoNewPrivs:"), ["1"]);
    if nix::unistd::geteuid().is_root() {
        assert_eq!(field("Uid:"), ["65534"; 4]);
        assert_eq!(field("Gid:"), ["65534"; 4]);
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
        assert_eq!(field("CapPrm:"), ["0000000000000000"]);
    }
    drop(child.stdin.take());
    let mut answer = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut answer)
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(answer, r#"{"fault":"Empty"}"#);
}

#[test]
fn an_initrd_that_is_missing_empty_or_changes_is_named() {
    let world = World::new();
    let path = world.file("initrd", b"\x1f\x8b\x08\0 whatever comes");
    let initrd = Initrd::open(&path).unwrap();
    assert_eq!(initrd.size(), 19);
    let mut bytes = [0; 5];
    initrd.read_at(&mut bytes, 14).unwrap();
    assert_eq!(&bytes, b"comes");
    assert!(matches!(
        initrd.read_at(&mut bytes, 15),
        Err(ImageError::Changed {
            role: Role::Initrd,
            ..
        })
    ));
    let empty = world.file("empty", b"");
    let said = Initrd::open(&empty).unwrap_err().to_string();
    assert_eq!(
        said,
        format!("initrd {} is empty; copy the file again", empty.display())
    );
    assert!(matches!(
        Initrd::size_fault(1 << 40),
        Some(Fault::TooBig { .. })
    ));
    let said = Initrd::open(Path::new("/nonexistent"))
        .unwrap_err()
        .to_string();
    assert_eq!(
        said,
        "initrd /nonexistent does not exist; check `ramdisk=` in the configuration"
    );
}
