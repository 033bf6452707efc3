//! The CM's flags and which of them go together.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use super::CmError;

/// The flags byte.
///
/// A packet with any of ENABLE, ENABLED, HS, HB is *consumed* by the gateway; with none it is
/// *data*. Legal, and nothing else:
///
/// | | may come with | session id | address list | slice block |
/// |---|---|---|---|---|
/// | data (none of the four) | IP_CHANGE, WRAP, OPEN, CLOSE | not 0 | exactly with IP_CHANGE | may |
/// | HB | IP_CHANGE, OPEN, CLOSE | any; not 0 with OPEN or CLOSE | exactly with IP_CHANGE | no |
/// | HS | — | any | may | no |
/// | ENABLE | — | any | may | no |
/// | ENABLED | — | any | may | no |
///
/// OPEN is set exactly when the tuple block is there. The sequence block may come with any; its
/// lane is below 32, or 63 on consumed packets. The family bit of the shape byte is 0 without an
/// address list. Reasons for what WIRE leaves open: WRAP describes user data, which a consumed
/// packet has none of; an HS, ENABLE or ENABLED lists the sender's addresses without announcing a
/// change; a list that has become empty is sent as the one address 0.0.0.0 or ::.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// Plain data, nothing to say.
    pub const NONE: Self = Self(0);
    /// Do you speak MPIP?
    pub const ENABLE: Self = Self(0x01);
    /// Yes.
    pub const ENABLED: Self = Self(0x02);
    /// The sender's addresses of this family changed; the list replaces that family.
    pub const IP_CHANGE: Self = Self(0x04);
    /// Path handshake.
    pub const HS: Self = Self(0x08);
    /// Heartbeat, probe, report.
    pub const HB: Self = Self(0x10);
    /// The outer L4 header is a wrapper around the session's own.
    pub const WRAP: Self = Self(0x20);
    /// The tuple block is present.
    pub const OPEN: Self = Self(0x40);
    /// The session ended.
    pub const CLOSE: Self = Self(0x80);

    const CONSUMED: Self = Self(0x1b);

    /// Whether all bits of `f` are set.
    #[must_use]
    pub const fn contains(self, f: Self) -> bool {
        self.0 & f.0 == f.0
    }

    /// Whether any bit of `f` is set.
    #[must_use]
    pub const fn intersects(self, f: Self) -> bool {
        self.0 & f.0 != 0
    }

    /// Both together, also in constants.
    #[must_use]
    pub const fn with(self, f: Self) -> Self {
        Self(self.0 | f.0)
    }

    /// These without `f`.
    #[must_use]
    pub const fn without(self, f: Self) -> Self {
        Self(self.0 & !f.0)
    }

    /// Taken in by the gateway, never delivered: any of ENABLE, ENABLED, HS, HB.
    #[must_use]
    pub const fn is_consumed(self) -> bool {
        self.intersects(Self::CONSUMED)
    }

    /// Carries user data.
    #[must_use]
    pub const fn is_data(self) -> bool {
        !self.is_consumed()
    }

    /// The table above; that OPEN and the tuple block agree is the caller's part.
    pub(super) fn check(self, session_is_zero: bool, has_list: bool) -> Result<(), CmError> {
        let change = self.contains(Self::IP_CHANGE);
        let (allowed, list_ok) = match self.0 & Self::CONSUMED.0 {
            0 => (Self::IP_CHANGE | Self::WRAP | Self::OPEN | Self::CLOSE, change == has_list),
            0x10 => (Self::IP_CHANGE | Self::OPEN | Self::CLOSE, change == has_list),
            0x01 | 0x02 | 0x08 => (Self::NONE, true),
            _ => return Err(CmError::Flags),
        };
        let needs_session = self.is_data() || self.intersects(Self::OPEN | Self::CLOSE);
        let extra = self.without(Self::CONSUMED).without(allowed);
        if extra != Self::NONE || !list_ok || (needs_session && session_is_zero) {
            return Err(CmError::Flags);
        }
        Ok(())
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, o: Self) -> Self {
        self.with(o)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, o: Self) {
        *self = self.with(o);
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 8] =
            ["ENABLE", "ENABLED", "IP_CHANGE", "HS", "HB", "WRAP", "OPEN", "CLOSE"];
        let mut separator = "";
        for (bit, name) in NAMES.iter().enumerate() {
            if self.0 >> bit & 1 != 0 {
                write!(f, "{separator}{name}")?;
                separator = "+";
            }
        }
        if separator.is_empty() { f.write_str("data") } else { Ok(()) }
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flags({self})")
    }
}
