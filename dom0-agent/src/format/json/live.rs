//! What `list -l` knows from the running guest and puts over its stored form.

use super::value::{Json, Map};

/// A guest's place in Xen's scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduler {
    /// `credit`, `credit2`, ...
    pub name: String,
    /// Weight.
    pub weight: u32,
    /// Upper limit in percent of a CPU, 0 for none.
    pub cap: u32,
}

/// A running guest as Xen and xenstore know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its number.
    pub domid: u32,
    /// Its present name; `None` keeps the stored one.
    pub name: Option<String>,
    /// KiB it may have; `None` keeps the stored size.
    pub max_kib: Option<u64>,
    /// KiB it is asked to have; `None` keeps the stored size.
    pub target_kib: Option<u64>,
    /// Its scheduler settings; `None` keeps the stored ones.
    pub scheduler: Option<Scheduler>,
}

impl Live {
    /// A guest of which nothing but the number is known.
    #[must_use]
    pub const fn numbered(domid: u32) -> Self {
        Self {
            domid,
            name: None,
            max_kib: None,
            target_kib: None,
            scheduler: None,
        }
    }

    /// One item of `list -l`.
    pub(super) fn entry(&self, mut stored: Json) -> Json {
        if let Json::Map(config) = &mut stored {
            if let Some(Json::Map(info)) = config.get_mut("c_info") {
                self.put_name(info);
            }
            if let Some(Json::Map(info)) = config.get_mut("b_info") {
                self.put_memory(info);
                self.put_scheduler(info);
            }
        }
        let mut entry = Map::default();
        entry.put("domid", self.domid);
        entry.put("config", stored);
        entry.into()
    }

    fn put_name(&self, info: &mut Map) {
        if let Some(name) = &self.name {
            const BEHIND: [&str; 6] = [
                "domid",
                "uuid",
                "xsdata",
                "pool_name",
                "run_hotplug_scripts",
                "driver_domain",
            ];
            info.set("name", name.as_str(), &BEHIND);
        }
    }

    fn put_memory(&self, info: &mut Map) {
        const BEHIND: [&str; 5] = [
            "video_memkb",
            "shadow_memkb",
            "rtc_timeoffset",
            "localtime",
            "sched_params",
        ];
        if let Some(kib) = self.target_kib {
            info.set("target_memkb", kib, &BEHIND);
        }
        if let Some(kib) = self.max_kib {
            info.set("max_memkb", kib, &["target_memkb"]);
        }
    }

    fn put_scheduler(&self, info: &mut Map) {
        let Some(scheduler) = &self.scheduler else {
            return;
        };
        let Some(Json::Map(settings)) = info.get_mut("sched_params") else {
            return;
        };
        settings.set(
            "cap",
            scheduler.cap,
            &["period", "budget", "extratime", "slice", "latency"],
        );
        settings.set("weight", scheduler.weight, &["cap"]);
        settings.set("sched", scheduler.name.as_str(), &["weight"]);
    }
}
