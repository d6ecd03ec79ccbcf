//! Controls of a camera: exposure, gain, white balance, focus and others.

use super::abi;
use super::facts::{CameraControl, ControlKind};
use super::ffi::zeroed;
use super::node::{MAX_ENTRIES, Node, text};

impl Node {
    /// Controls with a number as their value.
    pub(super) fn controls(&self) -> Vec<CameraControl> {
        let (mut controls, mut id) = (Vec::new(), 0);
        for _ in 0..MAX_ENTRIES {
            let mut control: abi::ControlDescription = zeroed();
            control.id = id | abi::CTRL_NEXT;
            if self.device.call(abi::QUERY_EXT_CTRL, &mut control).is_err() || control.id <= id {
                break;
            }
            id = control.id;
            controls.extend(self.control(&control));
        }
        controls
    }

    fn control(&self, control: &abi::ControlDescription) -> Option<CameraControl> {
        let kind = match control.kind {
            abi::CTRL_INTEGER | abi::CTRL_INTEGER64 => ControlKind::Integer,
            abi::CTRL_BOOLEAN => ControlKind::Boolean,
            abi::CTRL_MENU | abi::CTRL_INTEGER_MENU => ControlKind::Menu,
            abi::CTRL_BUTTON => ControlKind::Button,
            abi::CTRL_BITMASK => ControlKind::Bitmask,
            _ => return None,
        };
        let set = |flag| control.flags & flag != 0;
        if set(abi::CTRL_FLAG_DISABLED) {
            return None;
        }
        let readable = !set(abi::CTRL_FLAG_WRITE_ONLY) && kind != ControlKind::Button;
        let value = readable.then(|| self.device.call_control(abi::G_EXT_CTRLS, control.id, 0).ok());
        // 32-bit values fill the low half.
        let narrow = |value: i64| match control.kind {
            abi::CTRL_INTEGER64 => value,
            abi::CTRL_BITMASK => i64::from(value as u32),
            _ => i64::from(value as i32),
        };
        Some(CameraControl {
            name: control_name(&text(&control.name)),
            kind,
            min: control.minimum,
            max: control.maximum,
            step: control.step,
            default: control.default,
            value: value.flatten().map(narrow),
            menu: if kind == ControlKind::Menu { self.menu(control) } else { Vec::new() },
            read_only: set(abi::CTRL_FLAG_READ_ONLY),
            inactive: set(abi::CTRL_FLAG_INACTIVE),
            id: control.id,
        })
    }

    fn menu(&self, control: &abi::ControlDescription) -> Vec<(i64, String)> {
        let last = control.maximum.min(i64::from(MAX_ENTRIES));
        let entry = |index: i64| {
            let mut item: abi::MenuItem = zeroed();
            (item.id, item.index) = (control.id, u32::try_from(index).ok()?);
            self.device.call(abi::QUERYMENU, &mut item).ok()?;
            let [a, b, c, d, e, f, g, h, ..] = item.name;
            let name = match control.kind {
                abi::CTRL_INTEGER_MENU => i64::from_le_bytes([a, b, c, d, e, f, g, h]).to_string(),
                _ => text(&item.name),
            };
            Some((index, name))
        };
        (control.minimum..=last).filter_map(entry).collect()
    }

    /// Sets a control by its name.
    pub(super) fn set_control(&self, name: &str, value: i64) -> Result<(), String> {
        // Read anew each time: setting one control may change what another takes.
        let offered = self.controls();
        let control = find_control(&offered, name, value)?;
        let hint =
            if control.inactive { "; inactive: switch off the automatic that sets it first" } else { "" };
        let set = self.device.call_control(abi::S_EXT_CTRLS, control.id, value);
        set.map(|_| ()).map_err(|error| format!("control {name}: {error}{hint}"))
    }
}

/// A name as `v4l2-ctl` spells it: lower case, everything between letters and digits one `_`.
fn control_name(label: &str) -> String {
    let mut name = String::with_capacity(label.len());
    for word in label.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        if !name.is_empty() {
            name.push('_');
        }
        name.push_str(&word.to_ascii_lowercase());
    }
    name
}

/// The control of this name, if `value` is one that it takes; else what there is.
fn find_control<'a>(
    controls: &'a [CameraControl],
    name: &str,
    value: i64,
) -> Result<&'a CameraControl, String> {
    let Some(control) = controls.iter().find(|control| control.name == name) else {
        let names: Vec<_> = controls.iter().map(|control| control.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_string() } else { names.join(", ") };
        return Err(format!("control {name}: expected one of {names}"));
    };
    if control.read_only {
        return Err(format!("control {name}: expected one that can be set, got a read-only one"));
    }
    let in_menu = control.menu.is_empty() || control.menu.iter().any(|(number, _)| *number == value);
    if control.kind != ControlKind::Button && (!(control.min..=control.max).contains(&value) || !in_menu) {
        return Err(format!("control {name}: expected {}, got {value}", control.values()));
    }
    Ok(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_v4l2_ctl() {
        // Printed by `v4l2-ctl -L` for these labels.
        let known = [
            ("Exposure Time, Absolute", "exposure_time_absolute"),
            ("White Balance, Automatic", "white_balance_automatic"),
            ("Focus (absolute)", "focus_absolute"),
            ("Inject V4L2_BUF_FLAG_ERROR", "inject_v4l2_buf_flag_error"),
            ("Integer 32 Bits", "integer_32_bits"),
            ("  Gain ", "gain"),
        ];
        for (label, name) in known {
            assert_eq!(control_name(label), name);
        }
    }

    fn control(name: &str, kind: ControlKind, range: (i64, i64), menu: &[(i64, &str)]) -> CameraControl {
        CameraControl {
            name: name.into(),
            kind,
            min: range.0,
            max: range.1,
            step: 1,
            default: range.0,
            value: Some(range.0),
            menu: menu.iter().map(|(value, name)| (*value, name.to_string())).collect(),
            read_only: false,
            inactive: false,
            id: 0,
        }
    }

    #[test]
    fn a_wrong_control_is_told_what_there_is() {
        let controls = [
            control("gain", ControlKind::Integer, (0, 255), &[]),
            control("auto_exposure", ControlKind::Menu, (0, 3), &[(1, "Manual Mode"), (3, "Aperture")]),
        ];
        assert_eq!(find_control(&controls, "gain", 255).unwrap().name, "gain");
        assert_eq!(
            find_control(&controls, "gian", 1).unwrap_err(),
            "control gian: expected one of gain, auto_exposure"
        );
        assert_eq!(
            find_control(&controls, "gain", 256).unwrap_err(),
            "control gain: expected 0..=255, got 256"
        );
        assert_eq!(
            find_control(&controls, "auto_exposure", 2).unwrap_err(),
            "control auto_exposure: expected 1 (Manual Mode), 3 (Aperture), got 2"
        );
        assert_eq!(find_control(&[], "gain", 1).unwrap_err(), "control gain: expected one of none");
    }
}
