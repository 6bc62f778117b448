//! The walls of the sandbox, from inside, and its filters, answered by hand for calls that no safe code can make.

use super::*;
use nix::sys::termios::tcgetattr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use xen_host::pty::Pty;

const CHECK: &str = "control::sandbox::tests::the_sandbox_holds";
const INSIDE: &str = "SPLIT_DRIVERS_TEST_SANDBOX";
/// Set when this kernel's landlock walls off abstract sockets.
const SCOPED: &str = "SPLIT_DRIVERS_TEST_SCOPED";

/// Runs itself again in a process of its own, since a sandbox is for life.
#[test]
fn the_sandbox_holds() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if !nix::unistd::geteuid().is_root() {
        return test_skips::skipped("the_sandbox_holds", "this needs root");
    }
    // In a thread that ends: what landlock takes from it, it takes from nobody else.
    let walls = std::thread::spawn(|| restrict_paths().unwrap());
    let scoped = walls.join().unwrap() == RulesetStatus::FullyEnforced;
    if !scoped {
        let why = "this kernel has no landlock of version 6";
        test_skips::skipped("the_sandbox_holds, abstract sockets", why);
    }
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", CHECK, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .envs(scoped.then_some((SCOPED, "1")))
        .status()
        .unwrap();
    assert!(status.success());
}

fn inside() {
    let image = tempfile::tempfile().unwrap();
    image.set_len(1 << 20).unwrap();
    let scoped = std::env::var_os(SCOPED).is_some();
    // What is opened before may be used inside, to look at the walls.
    let status = std::fs::File::open("/proc/thread-self/status").unwrap();
    let (_master, slave, _) = Pty::open().unwrap().into_parts();
    assert!(tcgetattr(&slave).is_ok());
    let socket = UnixDatagram::unbound().unwrap();
    let name = format!("parapet-sandbox-{}", std::process::id());
    let other = SocketAddr::from_abstract_name(name).unwrap();
    let ear = UnixDatagram::bind_addr(&other).unwrap();
    ear.set_nonblocking(true).unwrap();
    socket.send_to_addr(b"before", &other).unwrap();

    set_limits().unwrap();
    enter(0x5000_0007).unwrap();
    if scoped {
        // The other end was made outside of these walls, as that of another driver would be.
        assert!(
            socket.send_to_addr(b"after", &other).is_err(),
            "no abstract socket of others is reached"
        );
    }
    assert_eq!(
        tcgetattr(&slave).err(),
        Some(Errno::EPERM),
        "an ioctl that is not listed"
    );
    nothing_starts();
    nothing_left(&status);
    // What serving needs still works: threads, io_uring on a passed descriptor, memory.
    let worked = std::thread::spawn(move || {
        use std::os::fd::AsFd;
        let mut ring = xen_host::uring::DiskRing::new(&[image.as_fd()], 8, 4).unwrap();
        assert!(ring.has_registered_pool());
        ring.flush(0, true, 1).unwrap();
        let mut outcome = None;
        ring.drain(std::time::Duration::from_secs(5), |done| {
            outcome = Some(done.result)
        })
        .unwrap();
        outcome
    });
    assert_eq!(worked.join().unwrap(), Some(0));
}

/// No program, no connection, no other user, no signal, no call that is not listed.
fn nothing_starts() {
    assert!(std::fs::read("/proc/self/status").is_err(), "no path opens");
    assert!(
        std::process::Command::new("/bin/true").status().is_err(),
        "no program runs"
    );
    assert_eq!(
        std::net::TcpStream::connect("127.0.0.1:1")
            .unwrap_err()
            .raw_os_error(),
        Some(libc::EPERM)
    );
    assert!(nix::unistd::setuid(nix::unistd::Uid::from_raw(0)).is_err());
    // To itself, which no user id forbids.
    assert_eq!(
        nix::sys::signal::kill(nix::unistd::Pid::this(), None),
        Err(Errno::EPERM),
        "no signals"
    );
    assert_eq!(
        nix::unistd::pipe().err(),
        Some(Errno::EPERM),
        "a system call that is not listed"
    );
}

/// No capability in any set, no way to a new one, and another user in every place.
fn nothing_left(status: &std::fs::File) {
    let mut bytes = vec![0; 8192];
    let len = status.read_at(&mut bytes, 0).unwrap();
    let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim()
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(field(set), 16), Ok(0), "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    let uid = 0x5000_0007.to_string();
    assert!(field("Uid:").split_whitespace().all(|id| id == uid));
    assert_eq!(field("Groups:"), "");
}

// ---- the filters ----

/// `AUDIT_ARCH_X86_64` of `linux/audit.h`.
const ARCH: u32 = 0xC000_003E;
/// `SECCOMP_RET_ALLOW` and `SECCOMP_RET_ERRNO` of `linux/seccomp.h`.
const ALLOW: u32 = 0x7FFF_0000;
const ERRNO: u32 = 0x0005_0000;

/// What the kernel answers to a call: as it runs a classic BPF program (`linux/filter.h`) over `struct seccomp_data`.
fn answer(program: &BpfProgram, call: i64, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(u32::try_from(call).unwrap().to_le_bytes());
    data.extend(ARCH.to_le_bytes());
    data.extend(0_u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let load = |at: u32| {
        let at = at as usize;
        u32::from_le_bytes(data[at..at + 4].try_into().unwrap())
    };
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let step = &program[at];
        at += 1;
        let mut jump = |taken: bool| at += usize::from(if taken { step.jt } else { step.jf });
        match step.code {
            0x20 => accumulator = load(step.k),
            0x54 => accumulator &= step.k,
            0x05 => at += step.k as usize,
            0x15 => jump(accumulator == step.k),
            0x25 => jump(accumulator > step.k),
            0x35 => jump(accumulator >= step.k),
            0x45 => jump(accumulator & step.k != 0),
            0x06 => return step.k,
            other => panic!("an instruction {other:#x} that this test does not know"),
        }
    }
}

/// `None` when the call is let through, else the number of its error.
fn refusal(call: i64, args: [u64; 6]) -> Option<u32> {
    let answers = filters().unwrap();
    let answers = answers.iter().map(|program| answer(program, call, args));
    let refused = answers.into_iter().find(|answer| *answer != ALLOW)?;
    assert_eq!(refused & 0xFFFF_0000, ERRNO, "call {call}");
    Some(refused & 0xFFFF)
}

#[test]
fn what_is_not_listed_is_refused_and_no_memory_is_executable() {
    let eperm = Some(errno(Errno::EPERM));
    let plain = |call| refusal(call, [0; 6]);
    // Allowed by their arguments only.
    let conditional = [
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_prctl,
        libc::SYS_ioctl,
    ];
    for call in (0..512).filter(|call| !conditional.contains(call)) {
        let wanted = (!ALLOWED.contains(&call)).then_some(errno(Errno::EPERM));
        assert_eq!(plain(call), wanted, "system call {call}");
    }
    for call in [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_kill,
        libc::SYS_execve,
        libc::SYS_open,
        libc::SYS_openat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_memfd_create,
        libc::SYS_pkey_mprotect,
    ] {
        assert_eq!(plain(call), eperm, "system call {call}");
    }
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        for protection in 0..16 {
            let executable = protection & 4 != 0;
            let wanted = if executable { eperm } else { None };
            assert_eq!(refusal(call, [0, 4096, protection, 0, 0, 0]), wanted);
        }
    }
    let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
    assert_eq!(refusal(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), None);
    assert_eq!(plain(libc::SYS_clone), eperm, "no new process");
    assert_eq!(plain(libc::SYS_clone3), Some(errno(Errno::ENOSYS)));
    for operation in 0..80 {
        let wanted = if operation == PR_SET_NAME {
            None
        } else {
            eperm
        };
        assert_eq!(refusal(libc::SYS_prctl, [operation, 0, 0, 0, 0, 0]), wanted);
    }
    for number in IOCTLS {
        assert_eq!(refusal(libc::SYS_ioctl, [0, *number, 0, 0, 0, 0]), None);
        let beside = number + 1;
        let wanted = (!IOCTLS.contains(&beside)).then_some(errno(Errno::EPERM));
        assert_eq!(refusal(libc::SYS_ioctl, [0, beside, 0, 0, 0, 0]), wanted);
    }
}
