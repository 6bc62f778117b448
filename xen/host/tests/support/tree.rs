//! The nodes of the fake xenstored.

use std::collections::BTreeMap;
use xen_abi::ids::DomId;
use xen_abi::xs_wire::{Access, PAYLOAD_MAX, Permission, Request, StoreErrno};

#[derive(Debug, Clone)]
struct Node {
    value: Vec<u8>,
    permissions: Vec<Permission>,
    changed: u64,
}

/// All nodes by path; every change has a number.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    generation: u64,
}

type Applied = (Vec<u8>, Option<String>);

impl Tree {
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn changes_since(&self, generation: u64) -> Vec<String> {
        let changed = self
            .nodes
            .iter()
            .filter(|(_, node)| node.changed > generation);
        changed.map(|(path, _)| path.clone()).collect()
    }

    pub fn value(&self, path: &str) -> Option<Vec<u8>> {
        self.nodes.get(path).map(|node| node.value.clone())
    }

    pub fn write(&mut self, path: &str, value: &[u8]) {
        self.make(path);
        self.node(path).value = value.to_vec();
    }

    fn node(&mut self, path: &str) -> &mut Node {
        self.generation += 1;
        let changed = self.generation;
        let node = self.nodes.entry(path.to_owned()).or_insert(Node {
            value: Vec::new(),
            permissions: vec![Permission::new(Access::None, DomId(0))],
            changed,
        });
        node.changed = changed;
        node
    }

    fn make(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').filter(|(at, _)| *at > 0) {
            if !self.nodes.contains_key(&path[..at]) {
                self.node(&path[..at]);
            }
        }
        if !self.nodes.contains_key(path) {
            self.node(path);
        }
    }

    fn children(&self, path: &str) -> Vec<u8> {
        let prefix = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        let mut names = Vec::new();
        for path in self.nodes.keys() {
            if let Some(name) = path.strip_prefix(&prefix)
                && !name.contains('/')
            {
                names.extend_from_slice(name.as_bytes());
                names.push(0);
            }
        }
        names
    }

    /// The answer to a request on a node, and the path it changed.
    pub fn apply(&mut self, request: &Request) -> Result<Applied, StoreErrno> {
        let ok = b"OK\0".to_vec();
        match request {
            Request::Read(path) => Ok((self.value(path).ok_or(StoreErrno::NoEnt)?, None)),
            Request::Directory(path) => {
                self.value(path).ok_or(StoreErrno::NoEnt)?;
                let names = self.children(path);
                if names.len() > PAYLOAD_MAX {
                    Err(StoreErrno::TooBig)
                } else {
                    Ok((names, None))
                }
            }
            Request::DirectoryPart(path, offset) => Ok((self.part(path, *offset)?, None)),
            Request::GetPerms(path) => {
                let node = self.nodes.get(path).ok_or(StoreErrno::NoEnt)?;
                let list = node.permissions.iter().map(|each| format!("{each}\0"));
                Ok((list.collect::<String>().into_bytes(), None))
            }
            Request::Write(path, value) => {
                self.write(path, value);
                Ok((ok, Some(path.clone())))
            }
            Request::Mkdir(path) => {
                self.make(path);
                Ok((ok, Some(path.clone())))
            }
            Request::Rm(path) => {
                self.value(path).ok_or(StoreErrno::NoEnt)?;
                self.generation += 1;
                let below = format!("{path}/");
                self.nodes
                    .retain(|each, _| each != path && !each.starts_with(&below));
                Ok((ok, Some(path.clone())))
            }
            Request::SetPerms(path, permissions) => {
                self.value(path).ok_or(StoreErrno::NoEnt)?;
                self.node(path).permissions.clone_from(permissions);
                Ok((ok, Some(path.clone())))
            }
            _ => Err(StoreErrno::NoSys),
        }
    }

    fn part(&self, path: &str, offset: usize) -> Result<Vec<u8>, StoreErrno> {
        self.value(path).ok_or(StoreErrno::NoEnt)?;
        let names = self.children(path);
        let rest = names.get(offset..).ok_or(StoreErrno::Inval)?;
        let mut answer = format!("{}\0", self.generation).into_bytes();
        let room = PAYLOAD_MAX - answer.len() - 1;
        if rest.len() <= room {
            answer.extend_from_slice(rest);
            answer.push(0);
            return Ok(answer);
        }
        let cut = rest[..room]
            .iter()
            .rposition(|byte| *byte == 0)
            .ok_or(StoreErrno::TooBig)?
            + 1;
        answer.extend_from_slice(&rest[..cut]);
        Ok(answer)
    }
}
