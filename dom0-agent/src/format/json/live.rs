//! What `list -l` knows from the running guest and puts over its stored form.
//!
//! Stock does the same: name, identity, memory, CPUs and scheduler settings are the present ones, and devices that
//! xenstore no longer has are dropped. Where something is not known, the stored member stays.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::value::{Json, Map};
use crate::config::vdev::vdev_number;

/// A guest's place in Xen's scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduler {
    /// `credit`, `credit2`, ...
    pub name: String,
    /// Weight and upper limit in percent of a CPU (0 for none), where it shares that way.
    pub share: Option<(u32, u32)>,
}

/// A running guest as Xen and xenstore know it; `None` for what is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its number.
    pub domid: u32,
    /// Its present name.
    pub name: Option<String>,
    /// Its identity.
    pub uuid: Option<Uuid>,
    /// Virtual CPUs that are online.
    pub online_vcpus: Option<BTreeSet<u32>>,
    /// KiB it may have (`memory/static-max`).
    pub max_kib: Option<u64>,
    /// KiB it is asked to have (`memory/target`).
    pub target_kib: Option<u64>,
    /// Its scheduler settings.
    pub scheduler: Option<Scheduler>,
    /// Device numbers of the disks that xenstore has.
    pub disks: Option<BTreeSet<u32>>,
    /// Device numbers of the interfaces that xenstore has.
    pub vifs: Option<BTreeSet<u32>>,
}

/// libxl's `LIBXL_MEMKB_DEFAULT`, as far as a sum of 64 bits can tell.
const VIDEO_NOT_SAID: i128 = -1;

/// Members of `c_info` that stand behind the identity.
const BEHIND_UUID: [&str; 5] = [
    "xsdata",
    "pool_name",
    "run_hotplug_scripts",
    "driver_domain",
    "passthrough",
];

/// Members of `b_info` of which at least one stands behind the memory sizes.
const BEHIND_MEMORY: [&str; 5] = [
    "video_memkb",
    "shadow_memkb",
    "rtc_timeoffset",
    "localtime",
    "sched_params",
];

impl Live {
    /// A guest of which nothing but the number is known.
    #[must_use]
    pub const fn numbered(domid: u32) -> Self {
        Self {
            domid,
            name: None,
            uuid: None,
            online_vcpus: None,
            max_kib: None,
            target_kib: None,
            scheduler: None,
            disks: None,
            vifs: None,
        }
    }

    /// One item of `list -l`.
    pub(super) fn entry(&self, mut stored: Json) -> Json {
        if let Json::Map(config) = &mut stored {
            if let Some(Json::Map(info)) = config.get_mut("c_info") {
                self.put_identity(info);
            }
            if let Some(Json::Map(info)) = config.get_mut("b_info") {
                self.put_vcpus(info);
                self.put_memory(info);
                self.put_scheduler(info);
            }
            let disk = |disk: &Map| vdev_number(disk.get("vdev")?.as_text()?);
            keep(config, "disks", self.disks.as_ref(), disk);
            let vif = |vif: &Map| u32::try_from(vif.get("devid")?.as_number()?).ok();
            keep(config, "nics", self.vifs.as_ref(), vif);
        }
        let mut entry = Map::default();
        entry.put("domid", self.domid);
        entry.put("config", stored);
        entry.into()
    }

    fn put_identity(&self, info: &mut Map) {
        // A nil identity is libxl's default, which is left out.
        if let Some(uuid) = self.uuid.filter(|uuid| !uuid.is_nil()) {
            info.set("uuid", uuid.hyphenated().to_string(), &BEHIND_UUID);
        }
        if let Some(name) = &self.name {
            let behind = [&["domid", "uuid"], BEHIND_UUID.as_slice()].concat();
            info.set("name", name.as_str(), &behind);
        }
    }

    /// Only where the form says how many there can be: that is how wide stock's map is.
    fn put_vcpus(&self, info: &mut Map) {
        let known = info.get("max_vcpus").is_some();
        if let Some(online) = self.online_vcpus.as_ref().filter(|_| known) {
            let numbers = online.iter().map(|&vcpu| Json::from(vcpu)).collect();
            let behind = [
                "vcpu_hard_affinity",
                "vcpu_soft_affinity",
                "numa_placement",
                "tsc_mode",
            ];
            let behind = [behind.as_slice(), &["max_memkb"], &BEHIND_MEMORY].concat();
            info.set("avail_vcpus", Json::List(numbers), &behind);
        }
    }

    /// Video memory is part of the target, though the guest is not asked to give it back.
    ///
    /// Where none is stored (dom0), stock adds its mark for "not said", which is -1: dom0's target is 1 KiB short there.
    fn put_memory(&self, info: &mut Map) {
        let video = info
            .get("video_memkb")
            .and_then(Json::as_number)
            .unwrap_or(VIDEO_NOT_SAID);
        if let Some(kib) = self.target_kib {
            let target = i128::from(kib).saturating_add(video);
            info.set("target_memkb", Json::Number(target), &BEHIND_MEMORY);
        }
        if let Some(kib) = self.max_kib {
            info.set("max_memkb", kib, &["target_memkb"]);
        }
    }

    fn put_scheduler(&self, info: &mut Map) {
        let Some(scheduler) = &self.scheduler else {
            return;
        };
        let mut settings = Map::default();
        settings.put("sched", scheduler.name.as_str());
        if let Some((weight, cap)) = scheduler.share {
            settings.put("weight", weight);
            settings.put("cap", cap);
        }
        if let Some(slot) = info.get_mut("sched_params") {
            *slot = settings.into();
        }
    }
}

/// Drops the devices that are not there; a list without any is left out.
fn keep(
    config: &mut Map,
    member: &str,
    there: Option<&BTreeSet<u32>>,
    number: impl Fn(&Map) -> Option<u32>,
) {
    let (Some(there), Some(Json::List(devices))) = (there, config.get_mut(member)) else {
        return;
    };
    devices.retain(|device| {
        device
            .as_map()
            .and_then(&number)
            .is_none_or(|number| there.contains(&number))
    });
    if devices.is_empty() {
        config.0.retain(|(key, _)| key != member);
    }
}
