//! Builds one guest without devices on the real hypervisor, to see the builders work alone, and to count what they cost.
//!
//! ```text
//! build_guest pv|pvh KERNEL INITRD|- MEMORY_MIB VCPUS [native] COMMAND LINE ...
//! ```
//!
//! Writes just the xenstore nodes that the guest's kernel and a stock console daemon need, starts the guest, and leaves:
//! `xl list`, `xl console` and `xl destroy` do the rest.

use dom0_agent::build::{self, BuildRequest, Built};
use dom0_agent::image::{self, Initrd, KernelCache};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;
use xen_abi::domain::{DomainKind, TscMode};
use xen_abi::ids::Handle;
use xen_host::seam::{DomainControl, Store, StoreExt};
use xen_host::xen::Xen;
use xen_host::xenstore::client::Client;
use xen_host::xenstore::store::{Access, Permission, StoreOp};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == image::WORKER_ARGUMENT)
    {
        return image::worker_main();
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [kind, kernel, initrd, memory, vcpus, rest @ ..] = arguments else {
        anyhow::bail!(
            "usage: build_guest pv|pvh KERNEL INITRD|- MEMORY_MIB VCPUS [native] ARGUMENTS"
        );
    };
    let kind = match kind.as_str() {
        "pv" => DomainKind::Pv,
        "pvh" => DomainKind::Pvh,
        other => anyhow::bail!("unknown kind {other}"),
    };
    let (tsc_mode, rest) = match rest {
        [first, rest @ ..] if first == "native" => (TscMode::Native, rest),
        rest => (TscMode::Default, rest),
    };
    let mut handle = [0; 16];
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    handle[..8].copy_from_slice(&clock.as_secs().to_be_bytes());
    handle[8..].copy_from_slice(&u64::from(std::process::id()).to_be_bytes());
    let memory_kib = memory.parse::<u64>()? * 1024;
    let request = BuildRequest {
        tsc_mode,
        command_line: rest.join(" "),
        ..BuildRequest::new(kind, Handle(handle), memory_kib, vcpus.parse()?)
    };

    let xen = Xen::open()?;
    let start = Instant::now();
    let cache = KernelCache::new(Path::new("/var/cache/parapet/kernels"));
    let kernel = cache.load(Path::new(kernel))?;
    let loaded = start.elapsed();
    let initrd = match initrd.as_str() {
        "-" => None,
        path => Some(Initrd::open(Path::new(path))?),
    };
    let calls = Xen::hypercalls();
    let start = Instant::now();
    let built = build::build(&xen, &request, &kernel, initrd.as_ref())?;
    let took = start.elapsed();
    println!(
        "domain {} built: kernel {} in {:.1} ms, domain in {:.1} ms with {} hypercalls",
        built.domid,
        if kernel.is_warm() {
            "from the cache"
        } else {
            "unpacked"
        },
        loaded.as_secs_f64() * 1e3,
        took.as_secs_f64() * 1e3,
        Xen::hypercalls() - calls,
    );
    introduce(&built, &request)?;
    xen.unpause(built.domid)?;
    Ok(())
}

fn introduce(built: &Built, request: &BuildRequest) -> anyhow::Result<()> {
    let store = Client::connect()?;
    let root = format!("/local/domain/{}", built.domid);
    let guest = Permission {
        access: Access::None,
        domid: built.domid,
    };
    let mut ops = vec![
        StoreOp::Mkdir(root.clone()),
        StoreOp::SetPermissions(root.clone(), vec![guest]),
    ];
    let mut nodes = vec![
        ("name".to_owned(), format!("built-{}", built.domid)),
        ("domid".to_owned(), built.domid.to_string()),
        ("memory/target".to_owned(), request.memory_kib.to_string()),
        (
            "memory/static-max".to_owned(),
            request.max_memory_kib.to_string(),
        ),
        ("store/port".to_owned(), built.store.port.to_string()),
        ("store/ring-ref".to_owned(), built.store.frame.to_string()),
        (
            "console/ring-ref".to_owned(),
            built.console.frame.to_string(),
        ),
        ("console/port".to_owned(), built.console.port.to_string()),
        ("console/type".to_owned(), "xenconsoled".to_owned()),
        ("console/output".to_owned(), "pty".to_owned()),
        ("console/limit".to_owned(), "1048576".to_owned()),
        ("console/tty".to_owned(), String::new()),
        ("control/shutdown".to_owned(), String::new()),
    ];
    for vcpu in 0..request.max_vcpus {
        let state = if vcpu < request.vcpus {
            "online"
        } else {
            "offline"
        };
        nodes.push((format!("cpu/{vcpu}/availability"), state.to_owned()));
    }
    ops.extend(
        nodes
            .into_iter()
            .map(|(key, value)| StoreOp::Write(format!("{root}/{key}"), value.into_bytes())),
    );
    let kind = StoreOp::Write(
        format!("/libxl/{}/type", built.domid),
        request.kind.as_str().into(),
    );
    ops.push(kind);
    store.commit("a guest's nodes", &ops)?;
    store.introduce(built.domid, built.store.frame, built.store.port)?;
    Ok(())
}
