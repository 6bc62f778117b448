//! Shows on a real control domain that every path to Xen works: run it as root in dom0.
//!
//! ```text
//! cargo build -p xen-host --example probe      then, in dom0:   probe [list]
//! ```
//!
//! `list` prints the domains as `xl list` does, so that the two can be compared; without it everything is tried, and whatever is made is undone.

use std::error::Error;
use std::time::Duration;
use xen_abi::domain::{
    CreateDomain, DomainInfo, DomainKind, MemoryKind, MemoryRange, ShutdownReason,
};
use xen_abi::ids::{DomId, Handle, PAGE_SIZE, Port, VcpuId};
use xen_abi::sysctl::{POLICY_HVM_DEFAULT, POLICY_PV_DEFAULT};
use xen_host::evtchn::EvtChn;
use xen_host::gntdev::GntDev;
use xen_host::seam::{DomainControl, Events, Grants, HostControl, MemoryControl};
use xen_host::uring::DiskRing;
use xen_host::xen::Xen;
use xen_host::xenstore::client::Client;
use xen_host::xenstore::quick::Quick;
use xen_host::xenstore::store::{Store, StoreExt, StoreOp, TxId};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let xen = Xen::open()?;
    if std::env::args().nth(1).as_deref() == Some("list") {
        return list(&xen);
    }
    xen.check_interface()?;
    host(&xen)?;
    list(&xen)?;
    store()?;
    ports(&xen)?;
    build_and_destroy(&xen, DomainKind::Pvh)?;
    build_and_destroy(&xen, DomainKind::Pv)?;
    for guest in xen.domain_list(DomId(1))? {
        look_into(&xen, &guest)?;
    }
    println!(
        "hypercalls {}, xenstore round trips {}",
        Xen::hypercalls(),
        xen_host::xenstore::round_trips()
    );
    Ok(())
}

fn list(xen: &Xen) -> Outcome {
    let domains = xen.domain_list(DomId::DOM0)?;
    let paths: Vec<String> = domains
        .iter()
        .map(|info| format!("/local/domain/{}/name", info.domid))
        .collect();
    let names = Quick::connect()?.read_many(&paths)?;
    println!(
        "{:<40} {:>5} {:>5} {:>5}\tState\t{:>8}",
        "Name", "ID", "Mem", "VCPUs", "Time(s)"
    );
    for (info, name) in domains.iter().zip(names) {
        let name = name.map_or_else(
            || "(null)".into(),
            |name| String::from_utf8_lossy(&name).into_owned(),
        );
        let mib = (info.tot_pages + info.outstanding_pages) / 256;
        let seconds = Duration::from_nanos(info.cpu_time_ns).as_secs_f64();
        let (domid, vcpus) = (info.domid, info.online_vcpus);
        println!(
            "{name:<40} {domid:>5} {mib:>5} {vcpus:>5}     {}  {seconds:8.1}",
            state(info)
        );
    }
    Ok(())
}

fn state(info: &DomainInfo) -> String {
    let crashed = info.shutdown == Some(ShutdownReason::Crash);
    [
        (info.running, 'r'),
        (info.blocked, 'b'),
        (info.paused, 'p'),
        (info.shutdown.is_some(), 's'),
        (crashed, 'c'),
        (info.dying, 'd'),
    ]
    .map(|(set, letter)| if set { letter } else { '-' })
    .iter()
    .collect()
}

fn host(xen: &Xen) -> Outcome {
    println!("release {} as {:?}", xen.version(), xen.abi());
    println!("{:#?}", xen.strings()?);
    println!("{:?}", xen.physinfo()?);
    println!(
        "scheduler {}, topology {:?}",
        xen.scheduler_id()?,
        xen.cpu_topology()?
    );
    println!("numa {:?}\npools {:?}", xen.numa()?, xen.cpupools()?);
    let log = xen.console_log(false)?;
    let last = String::from_utf8_lossy(&log);
    println!(
        "log {} bytes, last line {:?}",
        log.len(),
        last.lines().last()
    );
    for index in [POLICY_PV_DEFAULT, POLICY_HVM_DEFAULT] {
        let policy = xen.cpu_policy(index)?;
        println!(
            "policy {index}: {} leaves, {} registers",
            policy.leaves.len(),
            policy.msrs.len()
        );
    }
    Ok(())
}

fn store() -> Outcome {
    let client = Client::connect()?;
    let root = "/tool/parapet-probe";
    let result = store_under(&client, root);
    StoreExt::remove(&client, TxId::NONE, root)?;
    result
}

fn store_under(client: &Client, root: &str) -> Outcome {
    let watch = client.watch(root)?;
    watch
        .next_timeout(Duration::from_secs(5))
        .ok_or("the watch did not fire at once")?;
    let ops: Vec<StoreOp> = (0..300)
        .map(|i| StoreOp::Write(format!("{root}/child-number-{i}"), b"x".to_vec()))
        .collect();
    client.commit("probe", &ops)?;
    let children = client.list(TxId::NONE, root)?;
    println!(
        "xenstore: {} children read back (a list longer than a message)",
        children.len()
    );
    let fired = watch
        .next_timeout(Duration::from_secs(5))
        .ok_or("the watch did not fire")?;
    println!("xenstore: watch fired for {fired}");
    let answers = client.call(TxId::NONE, &[StoreOp::GetPermissions(root.into())])?;
    println!("xenstore: permissions {answers:?}");
    println!(
        "xenstore: dom0 introduced {}",
        client.is_introduced(DomId::DOM0)?
    );
    Ok(())
}

/// A port of dom0's own, connected to itself: notify, pending, unmask.
fn ports(xen: &Xen) -> Outcome {
    let (listener, caller) = (EvtChn::open()?, EvtChn::open()?);
    let theirs = listener.bind_unbound(DomId::DOM0)?;
    let ours = caller.bind_interdomain(DomId::DOM0, theirs)?;
    listener
        .pending()?
        .into_iter()
        .try_for_each(|port| listener.unmask(port))?;
    caller.notify(ours)?;
    let woke = listener.wait(Some(Duration::from_secs(5)))?;
    let fired = listener.pending()?;
    println!("ports: {theirs} <- {ours}, woke {woke}, fired {fired:?}");
    if fired != [theirs] {
        return Err("the port did not fire".into());
    }
    caller.notify(ours)?;
    println!("ports: while masked {:?}", listener.pending()?);
    listener.unmask(theirs)?;
    println!(
        "ports: after unmask {:?}",
        listener.wait(Some(Duration::from_secs(5)))?
    );
    listener
        .pending()?
        .into_iter()
        .try_for_each(|port| listener.unmask(port))?;
    let mut ring = DiskRing::new(&[listener.fd()], 1, 4)?;
    ring.poll(0, 77)?;
    ring.submit()?;
    caller.notify(ours)?;
    ring.submit_and_wait(Some(Duration::from_secs(5)))?;
    println!("ports: io_uring woke with {:?}", ring.next_completion());
    caller.restrict(DomId(1))?;
    let refused = caller.bind_interdomain(DomId::DOM0, theirs).is_err();
    println!("ports: restricted to domain 1, binding dom0 refused: {refused}");
    let _ = xen;
    Ok(())
}

/// An empty domain of each kind: everything a builder calls, up to writing its memory, then gone.
fn build_and_destroy(xen: &Xen, kind: DomainKind) -> Outcome {
    let create = CreateDomain {
        kind,
        handle: Handle([0x5a; 16]),
        max_vcpus: 2,
        max_event_port: 1023,
        max_grant_frames: Some(32),
        max_maptrack_frames: None,
        grant_version: 1,
        cpupool: 0,
        ssidref: 0,
    };
    let domid = xen.create_domain(&create)?;
    let result = populate(xen, domid, kind);
    xen.destroy_domain(domid)?;
    let after = xen.domain_info(domid)?;
    println!(
        "{}: domain {domid} destroyed, afterwards {:?}",
        kind.as_str(),
        after.map(|info| info.dying)
    );
    result
}

fn populate(xen: &Xen, domid: DomId, kind: DomainKind) -> Outcome {
    xen.max_vcpus(domid, 2)?;
    xen.set_max_mem(domid, 20 * 1024)?;
    xen.set_handle(domid, Handle([7; 16]))?;
    xen.set_sched_credit(domid, Some(300), None)?;
    let (hard, soft) = xen.vcpu_affinity(domid, VcpuId(0))?;
    xen.set_vcpu_affinity(domid, VcpuId(0), Some(&hard), Some(&soft))?;
    let port: Port = xen.alloc_unbound(domid, DomId::DOM0)?;
    match kind {
        DomainKind::Pv => xen.set_address_size(domid, 64)?,
        DomainKind::Pvh | DomainKind::Hvm => {
            xen.set_paging_pool(domid, 4 << 20)?;
            println!("pvh: state of {} bytes", xen.hvm_context(domid)?.len());
            xen.set_hvm_param(domid, xen_abi::hvm::params::STORE_EVTCHN, port.0.into())?;
            let back = xen.hvm_param(domid, xen_abi::hvm::params::STORE_EVTCHN)?;
            println!("pvh: parameter {back}, port {port}");
            xen.set_cpu_policy(domid, &xen.cpu_policy(POLICY_HVM_DEFAULT)?)?;
        }
    }
    let ram = MemoryRange {
        address: 0,
        size: 16 << 20,
        kind: MemoryKind::Ram,
    };
    xen.set_memory_map(domid, &[ram])?;
    xen.claim(domid, 4096)?;
    let mut big: Vec<u64> = (0..4).map(|i| i * 512).collect();
    let superpages = xen.populate(domid, &mut big, 9)?;
    let mut frames: Vec<u64> = (2048..4096).collect();
    let pages = xen.populate(domid, &mut frames, 0)?;
    xen.claim(domid, 0)?;
    println!(
        "{}: domain {domid}, {superpages} superpages, {pages} pages, first frame {:#x}",
        kind.as_str(),
        frames[0]
    );
    let region = xen.map_foreign(domid, &frames, true)?;
    let last = region.len() - 8;
    region.write(last, b"the end!");
    let again = xen.map_foreign(domid, &frames[frames.len() - 1..], false)?;
    let seen = again.read_vec(PAGE_SIZE - 8, 8);
    println!(
        "{}: {} MiB mapped, read back {:?}",
        kind.as_str(),
        region.len() >> 20,
        String::from_utf8_lossy(&seen)
    );
    let error = xen
        .map_foreign(domid, &[frames[0], 0xff_ffff_ffff], true)
        .err();
    println!(
        "{}: a frame that is not there: {}",
        kind.as_str(),
        error.ok_or("mapped what is not there")?
    );
    let table = xen.map_grant_table(domid, 1)?;
    table.store_u32(0, 0);
    println!("{}: grant table of {} bytes", kind.as_str(), table.len());
    let info = xen.domain_info(domid)?.ok_or("the domain is gone")?;
    println!(
        "{}: vcpu {:?}, {} pages",
        kind.as_str(),
        xen.vcpu_info(domid, VcpuId(1))?,
        info.tot_pages
    );
    if seen != b"the end!" {
        Err("foreign mappings do not share".into())
    } else {
        Ok(())
    }
}

/// A running guest of the stock toolstack: its first page and its grant table.
fn look_into(xen: &Xen, guest: &DomainInfo) -> Outcome {
    let frame = if guest.hvm {
        0x100
    } else {
        guest.shared_info_frame
    };
    let page = xen.map_foreign(guest.domid, &[frame], false)?;
    println!(
        "guest {}: frame {frame:#x} starts {:02x?}",
        guest.domid,
        page.read_vec(0, 16)
    );
    let table = xen.map_grant_table(guest.domid, 1)?;
    let entry = |index: usize| table.read_vec(index * 8, 8);
    println!(
        "guest {}: grants {:02x?} {:02x?}",
        guest.domid,
        entry(0),
        entry(1)
    );
    let grants = GntDev::open()?;
    let xenstore = grants.map(
        guest.domid,
        &[xen_abi::grant_table::RESERVED_XENSTORE],
        true,
    )?;
    println!(
        "guest {}: xenstore ring {:02x?}",
        guest.domid,
        xenstore.read_vec(2048, 24)
    );
    let local = xen_host::region::SharedRegion::anonymous(1)?;
    let segment = |gref| xen_host::seam::GrantCopy {
        direction: xen_host::seam::Direction::FromGuest,
        domid: guest.domid,
        gref,
        offset: 2048,
        local_offset: 0,
        len: 24,
        status: 99,
    };
    let mut segments = [
        segment(xen_abi::grant_table::RESERVED_XENSTORE),
        segment(xen_abi::ids::GrantRef(31_000)),
    ];
    grants.copy(&local, &mut segments)?;
    let same = local.read_vec(0, 24) == xenstore.read_vec(2048, 24);
    println!(
        "guest {}: copied, same {same}, statuses {:?}",
        guest.domid,
        segments.map(|each| each.status)
    );
    Ok(())
}
