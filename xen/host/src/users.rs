//! Users of services, by name.
//!
//! A static program must not ask the C library, which would load modules for it. Users that `systemd-sysusers` or `useradd --system` makes are in
//! `/etc/passwd`.

/// A user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// The user `name` of this host.
#[must_use]
pub fn find(name: &str) -> Option<User> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    find_in(name, &users)
}

/// The user `name` in a passwd(5) file.
fn find_in(name: &str, users: &str) -> Option<User> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let (_, uid, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some(User {
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "root:x:0:0:root:/root:/bin/bash\nparapet-monitor2:x:7:7::/:\nparapet-monitor:x:998:997::/:/usr/sbin/nologin\n";
        let found = find_in("parapet-monitor", users);
        assert_eq!(found, Some(User { uid: 998, gid: 997 }));
        for without in [
            "",
            "parapet-monitor",
            "parapet-monitor:x:none:0",
            "parapet-monitor:x:1",
            "x:parapet-monitor:1:1",
        ] {
            assert_eq!(find_in("parapet-monitor", without), None, "{without}");
        }
    }
}
