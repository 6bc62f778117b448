//! The two halves of a device in xenstore, written by hand.

use anyhow::{Context, bail};
use std::time::Duration;
use xen_abi::ids::DomId;
use xen_abi::xs_wire::{Access, Permission};
use xen_host::xenstore::client::Client;
use xen_host::xenstore::store::{StoreExt, StoreOp, TxId};

pub struct Nodes {
    pub store: Client,
    pub front: String,
    pub back: String,
}

impl Nodes {
    /// Makes both directories; the frontend is not told to begin. The backend's type is one that no kernel driver claims.
    pub fn make(
        domid: u16,
        kind: &str,
        devid: u32,
        extra: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let store = Client::connect()?;
        let front = format!("/local/domain/{domid}/device/{kind}/{devid}");
        let back = format!("/local/domain/0/backend/parapet-{kind}/{domid}/{devid}");
        let ours = vec![
            Permission {
                domid: DomId::DOM0,
                access: Access::None,
            },
            Permission {
                domid: DomId(domid),
                access: Access::Read,
            },
        ];
        let theirs = vec![
            Permission {
                domid: DomId(domid),
                access: Access::None,
            },
            Permission {
                domid: DomId::DOM0,
                access: Access::Read,
            },
        ];
        store.remove(TxId::NONE, &front)?;
        store.remove(TxId::NONE, &back)?;
        let mut ops = vec![
            StoreOp::Mkdir(back.clone()),
            StoreOp::SetPermissions(back.clone(), ours),
            StoreOp::Mkdir(front.clone()),
            StoreOp::SetPermissions(front.clone(), theirs),
        ];
        let mut write =
            |path: String, value: &str| ops.push(StoreOp::Write(path, value.as_bytes().to_vec()));
        write(format!("{back}/frontend"), &front);
        write(format!("{back}/frontend-id"), &domid.to_string());
        write(format!("{back}/online"), "1");
        write(format!("{back}/state"), "1");
        write(format!("{front}/backend"), &back);
        write(format!("{front}/backend-id"), "0");
        for (name, value) in extra {
            write(format!("{front}/{name}"), value);
        }
        store.commit("device", &ops)?;
        Ok(Self { store, front, back })
    }

    pub fn publish(&self, nodes: &[(&str, String)], state: u32) -> anyhow::Result<()> {
        let mut ops: Vec<_> = nodes
            .iter()
            .map(|(name, value)| {
                StoreOp::Write(format!("{}/{name}", self.back), value.as_bytes().to_vec())
            })
            .collect();
        ops.push(StoreOp::Write(
            format!("{}/state", self.back),
            state.to_string().into_bytes(),
        ));
        Ok(self.store.commit("features", &ops)?)
    }

    /// Tells the frontend to begin.
    pub fn begin(&self) -> anyhow::Result<()> {
        Ok(self
            .store
            .write_text(TxId::NONE, &format!("{}/state", self.front), "1")?)
    }

    pub fn set_state(&self, state: u32) -> anyhow::Result<()> {
        Ok(self.store.write_text(
            TxId::NONE,
            &format!("{}/state", self.back),
            &state.to_string(),
        )?)
    }

    /// A key of the frontend.
    pub fn get(&self, key: &str) -> anyhow::Result<Option<String>> {
        Ok(self
            .store
            .read_text(TxId::NONE, &format!("{}/{key}", self.front))?)
    }

    pub fn number(&self, key: &str) -> anyhow::Result<u32> {
        let value = self
            .get(key)?
            .with_context(|| format!("the frontend wrote no {key}"))?;
        value.parse().with_context(|| format!("{key} is {value}"))
    }

    pub fn flag(&self, key: &str) -> anyhow::Result<bool> {
        Ok(self.get(key)?.as_deref() == Some("1"))
    }

    /// Waits for the frontend to reach one of `states`.
    pub fn wait_front(&self, states: &[&str]) -> anyhow::Result<()> {
        for _ in 0..6000 {
            let state = self.get("state")?.unwrap_or_default();
            if states.contains(&state.as_str()) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the frontend does not connect")
    }
}
