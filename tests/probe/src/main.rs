//! Tries and times the calls of a patched hypervisor (`xen-patches/`) in a lab's dom0, beside the ordinary way to the same end.
//!
//! ```text
//!   lab-probe copy DOMID    every page of a paused domain, mapped and copied: the same bytes; then both timed
//!   lab-probe crash DOMID   crashes it; prints the nanoseconds until Xen's own event and until xenstored's watch
//!   lab-probe stop DOMID    crashes it and waits for nothing
//! ```
//!
//! `crash` and `stop` end the domain. A line that begins with `absent` says that this hypervisor does not have the call.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use xen_abi::domain::ShutdownReason;
use xen_abi::ids::{DomId, PAGE_SIZE, VcpuId};
use xen_abi::layout::copy_out;
use xen_abi::pv::page_table::LEVELS;
use xen_abi::pv::vcpu_context::{VcpuGuestContext, frame_of_cr3};
use xen_host::devices::HostDevices;
use xen_host::seam::{Copied, Devices, DomainControl, Extras, MemoryControl, Offer, Store};
use xen_host::xen::Xen;
use xen_host::xenstore::client::Client;

/// Pages of one step, as saving takes them.
const STEP: usize = 1024;
/// Frames of a PVH guest that are looked at: those below 512 MiB.
const GFNS: u64 = 512 << 8;
/// Entries of a page table.
const ENTRIES: usize = 512;
/// Entries of the topmost one that are the hypervisor's.
const XENS_SLOTS: std::ops::Range<usize> = 256..272;
const PRESENT: u64 = 1;
const FRAME_BITS: u64 = (1 << 40) - 1;
/// What `getpageframeinfo3` says of memory that is nothing special.
const NORMAL: u32 = 0;
/// And of what is no frame of the domain.
const XTAB: u32 = 0xf << 28;
/// Longest wait for news of a crash.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["copy", domid] => copy(DomId(domid.parse()?)),
        ["crash", domid] => crash(DomId(domid.parse()?)),
        ["stop", domid] => {
            Ok(Xen::open()?.remote_shutdown(DomId(domid.parse()?), ShutdownReason::Crash)?)
        }
        _ => bail!("lab-probe copy|crash|stop DOMID"),
    }
}

/// Frames of the domain that hold ordinary memory, and page tables among its frames.
fn frames(xen: &Xen, domid: DomId) -> Result<(Vec<u64>, Vec<u64>)> {
    let info = xen.domain_info(domid)?.context("no such domain")?;
    let candidates: Vec<u64> = match info.hvm {
        false => pv_frames(xen, domid)?,
        true => (0..GFNS).collect(),
    };
    let types = xen.page_types(domid, &candidates)?;
    let of = |wanted: fn(u32) -> bool| {
        let pairs = candidates.iter().zip(&types);
        pairs
            .filter(|(_, kind)| wanted(**kind))
            .map(|(frame, _)| *frame)
            .collect()
    };
    let tables = |kind: u32| (1..=4).contains(&(kind >> 28 & 7));
    Ok((of(|kind| kind == NORMAL), of(tables)))
}

/// Frames that a PV domain's page tables name, and those tables. (Asking for every frame of the machine would fill Xen's log.)
fn pv_frames(xen: &Xen, domid: DomId) -> Result<Vec<u64>> {
    let context: VcpuGuestContext =
        copy_out(&xen.vcpu_context(domid, VcpuId(0))?).context("Xen gives no registers")?;
    let mut level: Vec<u64> = vec![frame_of_cr3(context.ctrlreg[3]).0];
    let mut all: BTreeSet<u64> = level.iter().copied().collect();
    for depth in (1..=LEVELS).rev() {
        let mut next = BTreeSet::new();
        for part in level.chunks(STEP) {
            let tables = xen.map_foreign(domid, part, false)?;
            for at in 0..part.len() * ENTRIES {
                let xens = depth == LEVELS && XENS_SLOTS.contains(&(at % ENTRIES));
                let entry = tables.load_u64(at * size_of::<u64>());
                if entry & PRESENT != 0 && !xens {
                    next.insert(entry >> 12 & FRAME_BITS);
                }
            }
        }
        all.extend(&next);
        level = next.into_iter().collect();
    }
    let all: Vec<u64> = all.into_iter().collect();
    let types = xen.page_types(domid, &all)?;
    let there = all.into_iter().zip(types).filter(|(_, kind)| *kind != XTAB);
    Ok(there.map(|(frame, _)| frame).collect())
}

fn copy(domid: DomId) -> Result<()> {
    let xen = Xen::open()?;
    if !xen.offers_copies(domid)? {
        println!("absent copy");
        return Ok(());
    }
    xen.pause(domid)?;
    let outcome = compare(&xen, domid);
    xen.unpause(domid)?;
    outcome
}

fn compare(xen: &Xen, domid: DomId) -> Result<()> {
    let (frames, tables) = frames(xen, domid)?;
    let buffer = xen.copy_buffer(STEP)?;
    let (mut zeroes, mut checked) = (0, 0);
    for part in frames.chunks(STEP) {
        buffer.fill(0, part.len() * PAGE_SIZE, 0xa5);
        let mapped = xen.map_foreign(domid, part, false)?;
        let Offer::Done(told) = xen.copy_out(domid, part, &buffer)? else {
            bail!("it was there a moment ago");
        };
        ensure!(told.len() == part.len(), "an answer for each page");
        for (index, told) in told.iter().enumerate() {
            let page = mapped.read_vec(index * PAGE_SIZE, PAGE_SIZE);
            let copied = buffer.read_vec(index * PAGE_SIZE, PAGE_SIZE);
            let empty = page.iter().all(|byte| *byte == 0);
            let right = match told {
                Copied::Zero => empty && copied.iter().all(|byte| *byte == 0xa5),
                Copied::Copied => !empty && copied == page,
                Copied::Refused(_) => false,
            };
            ensure!(right, "frame {:#x}: {told:?}", part[index]);
            zeroes += usize::from(empty);
            checked += 1;
        }
    }
    into_the_domain(xen, domid, &frames)?;
    holes(xen, domid, &frames)?;
    for table in tables.iter().take(STEP) {
        let error = xen.copy_in(domid, &[*table], &buffer);
        ensure!(error.is_err(), "page table {table:#x} was written");
    }
    println!(
        "same {checked} pages, {zeroes} of them zero, {} page tables refused",
        tables.len().min(STEP)
    );
    time(xen, domid, &frames)
}

/// What is written is what is read, and the page is as it was in the end.
fn into_the_domain(xen: &Xen, domid: DomId, frames: &[u64]) -> Result<()> {
    let some: Vec<u64> = frames.iter().copied().step_by(97).take(64).collect();
    let (old, new) = (xen.copy_buffer(some.len())?, xen.copy_buffer(some.len())?);
    old.fill(0, some.len() * PAGE_SIZE, 0);
    let Offer::Done(_) = xen.copy_out(domid, &some, &old)? else {
        bail!("it was there a moment ago");
    };
    for index in 0..some.len() {
        new.fill(index * PAGE_SIZE, PAGE_SIZE, u8::try_from(index + 1)?);
    }
    ensure!(xen.copy_in(domid, &some, &new)? == Offer::Done(()));
    let mapped = xen.map_foreign(domid, &some, false)?;
    for index in 0..some.len() {
        let page = mapped.read_vec(index * PAGE_SIZE, PAGE_SIZE);
        let wanted = u8::try_from(index + 1)?;
        ensure!(page.iter().all(|byte| *byte == wanted), "page {index}");
    }
    ensure!(xen.copy_in(domid, &some, &old)? == Offer::Done(()));
    let len = some.len() * PAGE_SIZE;
    ensure!(mapped.read_vec(0, len) == old.read_vec(0, len), "put back");
    Ok(())
}

/// A frame that is none is refused alone.
fn holes(xen: &Xen, domid: DomId, frames: &[u64]) -> Result<()> {
    let first = *frames.first().context("no page")?;
    let buffer = xen.copy_buffer(3)?;
    let list = [first, 1 << 40, first];
    let Offer::Done(told) = xen.copy_out(domid, &list, &buffer)? else {
        bail!("it was there a moment ago");
    };
    let refused = |told: &Copied| matches!(told, Copied::Refused(_));
    ensure!(!refused(&told[0]) && refused(&told[1]) && told[0] == told[2]);
    ensure!(xen.copy_in(domid, &[1 << 40], &buffer).is_err());
    ensure!(xen.copy_out(DomId(0x7fef), &list, &buffer).is_err());
    Ok(())
}

/// Microseconds for all pages, by mapping and reading, and by copying.
fn time(xen: &Xen, domid: DomId, frames: &[u64]) -> Result<()> {
    let buffer = xen.copy_buffer(STEP)?;
    let began = Instant::now();
    for part in frames.chunks(STEP) {
        let mapped = xen.map_foreign(domid, part, false)?;
        mapped.copy_to(0, &buffer, 0, part.len() * PAGE_SIZE);
    }
    let mapping = began.elapsed();
    let began = Instant::now();
    for part in frames.chunks(STEP) {
        let _ = xen.copy_out(domid, part, &buffer)?;
    }
    let copying = began.elapsed();
    println!(
        "{} pages: mapped and copied in {} us, copied by Xen in {} us",
        frames.len(),
        mapping.as_micros(),
        copying.as_micros()
    );
    Ok(())
}

fn crash(domid: DomId) -> Result<()> {
    let xen = Xen::open()?;
    let store = Client::connect()?;
    let events = HostDevices.open_events(None)?;
    let bell = events.loopback()?;
    let there = xen.notify_shutdown(domid, bell.through)? == Offer::Done(());
    for port in events.pending()? {
        events.unmask(port)?;
    }
    let watch = store.watch("@releaseDomain")?;
    // A watch fires once for having been set.
    while watch.next_timeout(Duration::from_millis(500)).is_some() {}
    let (told, heard) = mpsc::channel();
    let began = Instant::now();
    let waiting = std::thread::spawn(move || {
        let rang = there && events.wait(Some(PATIENCE)).unwrap_or(false);
        let _ = told.send(rang.then(|| began.elapsed()));
    });
    xen.remote_shutdown(domid, ShutdownReason::Crash)?;
    let watched = watch.next_timeout(PATIENCE).map(|_| began.elapsed());
    let rang = heard.recv_timeout(PATIENCE).ok().flatten();
    let _ = waiting.join();
    let said = |time: Option<Duration>| {
        time.map_or_else(|| "absent".into(), |time| time.as_nanos().to_string())
    };
    println!("xen {} xenstored {}", said(rang), said(watched));
    Ok(())
}
