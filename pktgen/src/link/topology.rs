//! Which links there are and which direction of which link is meant, as text.
//!
//! `p1:net_af_xdp0,iface=x:net_af_xdp1,iface=y` is a link between two ports; a port whose name has a
//! colon goes into brackets: `p1:[0000:00:05.0]:[0000:00:06.0]`. `p1:ab:rate=40Mbit/s` changes what
//! goes from the first port to the second, `ba` the other way, `both` both.

use super::spec::{Change, SpecError};

/// Longest name of a link, bytes.
pub const MAX_NAME: usize = 32;

/// Why a link or a change was not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopologyError {
    /// Not a link.
    #[error(
        "\"{0}\" is not a link; write name:port:port with the ports' device arguments, \
         for example p1:net_af_xdp0,iface=x:net_af_xdp1,iface=y, and a port that has a colon in \
         brackets: p1:[0000:00:05.0]:[0000:00:06.0]"
    )]
    Link(String),
    /// Not a name.
    #[error("\"{0}\" is not a name; use 1 to {MAX_NAME} letters, digits, -, _ or .")]
    Name(String),
    /// Two links of one name.
    #[error("link {0} is given twice")]
    SameName(String),
    /// One port in two places.
    #[error("port {0} is used twice")]
    SamePort(String),
    /// Not a change.
    #[error(
        "\"{0}\" is not a change; write link:direction:key=value,… with direction ab, ba or both"
    )]
    Change(String),
    /// No such link.
    #[error("there is no link {name}; the links are: {known}")]
    NoLink {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The parameters are wrong.
    #[error("{target}: {error}")]
    Params {
        /// Link and direction.
        target: String,
        /// What is wrong.
        error: SpecError,
    },
}

/// A link between two ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkSpec {
    /// Its name.
    pub name: String,
    /// Device arguments of ports a and b.
    pub ports: [String; 2],
}

impl LinkSpec {
    /// Parses `name:port:port`.
    ///
    /// # Errors
    /// Names the text and the form it should have.
    pub fn parse(text: &str) -> Result<Self, TopologyError> {
        let error = || TopologyError::Link(text.into());
        let (name, rest) = text.split_once(':').ok_or_else(error)?;
        let name = checked_name(name)?;
        let (a, rest) = port(rest).ok_or_else(error)?;
        let (b, rest) = port(rest.strip_prefix(':').ok_or_else(error)?).ok_or_else(error)?;
        if !rest.is_empty() {
            return Err(error());
        }
        Ok(Self { name, ports: [a.into(), b.into()] })
    }
}

/// Checks that names and ports are not used twice.
///
/// # Errors
/// Names the first one that is.
pub fn check_distinct(links: &[LinkSpec]) -> Result<(), TopologyError> {
    let device = |devargs: &str| devargs.split(',').next().unwrap_or_default().to_owned();
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for link in links {
        if names.contains(&&link.name) {
            return Err(TopologyError::SameName(link.name.clone()));
        }
        names.push(&link.name);
        for port in &link.ports {
            let device = device(port);
            if ports.contains(&device) {
                return Err(TopologyError::SamePort(device));
            }
            ports.push(device);
        }
    }
    Ok(())
}

/// Checks that changes are meant for links there are.
///
/// # Errors
/// Names the first one that is not.
pub fn check_known(links: &[LinkSpec], changes: &[LinkChange]) -> Result<(), TopologyError> {
    let known = |name: &str| links.iter().any(|link| link.name == name);
    match changes.iter().find(|change| !known(&change.link)) {
        None => Ok(()),
        Some(change) => {
            let known: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
            Err(TopologyError::NoLink { name: change.link.clone(), known: known.join(", ") })
        }
    }
}

/// A direction of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the first port to the second.
    Ab,
    /// From the second port to the first.
    Ba,
}

impl Way {
    /// Both, in the order in which a link keeps them.
    pub const ALL: [Self; 2] = [Self::Ab, Self::Ba];

    /// `ab` or `ba`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ab => "ab",
            Self::Ba => "ba",
        }
    }

    /// Its place in a link's pair of directions, and the number of the port it starts from.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Ab => 0,
            Self::Ba => 1,
        }
    }
}

/// A change to one or both directions of a link.
#[derive(Clone, PartialEq, Debug)]
pub struct LinkChange {
    /// The link's name.
    pub link: String,
    /// The directions meant.
    pub ways: &'static [Way],
    /// New values.
    pub change: Change,
}

impl LinkChange {
    /// Parses `link:direction:key=value,…`.
    ///
    /// # Errors
    /// Names the text, or the key, and what would do.
    pub fn parse(text: &str) -> Result<Self, TopologyError> {
        let error = || TopologyError::Change(text.into());
        let mut parts = text.splitn(3, ':');
        let (Some(name), Some(way), Some(change)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(error());
        };
        let ways: &[Way] = match way {
            "ab" => &[Way::Ab],
            "ba" => &[Way::Ba],
            "both" => &Way::ALL,
            _ => return Err(error()),
        };
        let change = Change::parse(change)
            .map_err(|error| TopologyError::Params { target: format!("{name}:{way}"), error })?;
        Ok(Self { link: checked_name(name)?, ways, change })
    }
}

fn checked_name(name: &str) -> Result<String, TopologyError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(legal) {
        return Err(TopologyError::Name(name.chars().take(2 * MAX_NAME).collect()));
    }
    Ok(name.into())
}

/// The port at the start of `text`, and the rest.
fn port(text: &str) -> Option<(&str, &str)> {
    let (port, rest) = match text.strip_prefix('[') {
        Some(inside) => inside.split_once(']')?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    (!port.is_empty()).then_some((port, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(text: &str) -> Result<(String, [String; 2]), TopologyError> {
        LinkSpec::parse(text).map(|l| (l.name, l.ports))
    }

    #[test]
    fn links() {
        assert_eq!(
            link("p1:net_af_xdp0,iface=x:net_af_xdp1,iface=y"),
            Ok(("p1".into(), ["net_af_xdp0,iface=x".into(), "net_af_xdp1,iface=y".into()]))
        );
        assert_eq!(
            link("w.1:[0000:00:05.0]:[0000:00:06.0,x=1]"),
            Ok(("w.1".into(), ["0000:00:05.0".into(), "0000:00:06.0,x=1".into()]))
        );
        for text in ["", "p1", "p1:a", "p1:a:", "p1::b", "p1:a:b:c", "p1:[a:b", "p1:[a]b:c", ":a:b"]
        {
            assert!(link(text).is_err(), "{text}");
        }
        assert!(matches!(link("p 1:a:b"), Err(TopologyError::Name(_))));
    }

    #[test]
    fn names_and_ports_are_used_once() {
        let check = |texts: &[&str]| {
            check_distinct(&texts.iter().map(|t| LinkSpec::parse(t).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(check(&["p1:a:b", "p2:c:d"]), Ok(()));
        assert_eq!(check(&["p1:a:b", "p1:c:d"]), Err(TopologyError::SameName("p1".into())));
        assert_eq!(check(&["p1:a,x=1:a,x=2"]), Err(TopologyError::SamePort("a".into())));
    }

    #[test]
    fn changes_are_for_links_there_are() {
        let links = [LinkSpec::parse("p1:a:b").unwrap()];
        let change = |text| [LinkChange::parse(text).unwrap()];
        assert_eq!(check_known(&links, &change("p1:ab:down=true")), Ok(()));
        let error = check_known(&links, &change("p2:ab:down=true")).unwrap_err().to_string();
        assert_eq!(error, "there is no link p2; the links are: p1");
    }

    #[test]
    fn changes() {
        let change = LinkChange::parse("p1:both:rate=40Mbit/s,down=true").unwrap();
        assert_eq!((change.link.as_str(), change.ways), ("p1", Way::ALL.as_slice()));
        assert_eq!(change.change, Change::parse("rate=40Mbit/s,down=true").unwrap());
        for text in
            ["p1", "p1:ab", "p1:ac:down=true", "p1:ab:down", "p1:ab:", "::", "p1:AB:down=true"]
        {
            assert!(LinkChange::parse(text).is_err(), "{text}");
        }
        let error = LinkChange::parse("p1:ab:rate=40").unwrap_err().to_string();
        assert!(error.starts_with("p1:ab: rate: \"40\" needs a unit"), "{error}");
    }
}
