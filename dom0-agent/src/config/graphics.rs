//! Virtual frame buffers (`vfb=`), kept for the JSON form; no backend of ours draws them yet.

use serde::{Deserialize, Serialize};

use super::number::atoi;

/// One frame buffer. What was not said is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfbSpec {
    /// `vnc=`
    pub vnc: Option<bool>,
    /// `vnclisten=`
    pub vnc_listen: Option<String>,
    /// `vncpasswd=`
    pub vnc_password: Option<String>,
    /// `vncdisplay=`
    pub vnc_display: i32,
    /// `vncunused=`
    pub vnc_find_unused: Option<bool>,
    /// `sdl=`
    pub sdl: Option<bool>,
    /// `opengl=`
    pub opengl: Option<bool>,
    /// `display=`
    pub display: Option<String>,
    /// `xauthority=`
    pub xauthority: Option<String>,
    /// `keymap=`
    pub keymap: Option<String>,
}

/// Reads one item of `vfb=`. As in stock, unknown parameters are ignored and a word without `=` ends the reading.
#[must_use]
pub fn parse_vfb(spec: &str) -> VfbSpec {
    let mut vfb = VfbSpec::default();
    for parameter in spec.split(',').filter(|p| !p.is_empty()) {
        let Some((key, value)) = parameter.trim_start_matches(' ').split_once('=') else {
            break;
        };
        let flag = || Some(atoi(value) != 0);
        let text = || Some(value.to_owned());
        match key {
            "vnc" => vfb.vnc = flag(),
            "vnclisten" => vfb.vnc_listen = text(),
            "vncpasswd" => vfb.vnc_password = text(),
            "vncdisplay" => vfb.vnc_display = atoi(value),
            "vncunused" => vfb.vnc_find_unused = flag(),
            "sdl" => vfb.sdl = flag(),
            "opengl" => vfb.opengl = flag(),
            "display" => vfb.display = text(),
            "xauthority" => vfb.xauthority = text(),
            "keymap" => vfb.keymap = text(),
            _ => {}
        }
    }
    vfb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_up_to_a_bare_word() {
        let vfb = parse_vfb("vnc=1, vnclisten=0.0.0.0:1,foo=2,vncpasswd=,vncunused=0,bare,sdl=1");
        let want = VfbSpec {
            vnc: Some(true),
            vnc_listen: Some("0.0.0.0:1".into()),
            vnc_password: Some(String::new()),
            vnc_find_unused: Some(false),
            ..VfbSpec::default()
        };
        assert_eq!(vfb, want);
    }
}
