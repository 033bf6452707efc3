//! Files over HTTP between real programs: nginx serves and accepts, curl fetches and sends. Contents are
//! compared by SHA-256 and, where a capture is at hand, byte by byte in every segment.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::capture::Frame;
use super::error::{LabError, Result};
use super::mptcp;
use super::netns::Namespaces;
use super::process::{Cmd, Proc};

/// Port of the servers.
pub const HTTP_PORT: u16 = 80;
/// Another port of theirs, for flows that a rule is to tell apart.
pub const OTHER_PORT: u16 = 81;
/// Longest a transfer may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// An nginx in a namespace, serving and accepting files in a folder of its own.
pub struct Server {
    _process: Proc,
    root: PathBuf,
    address: Ipv4Addr,
}

/// A finished transfer.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Same bytes on both sides (SHA-256).
    pub intact: bool,
    /// Goodput of the body, Mbit/s.
    pub mbit_s: f64,
}

impl Server {
    /// Starts nginx in a namespace.
    ///
    /// # Errors
    /// nginx refuses or does not listen.
    pub fn start(ns: &Namespaces, namespace: &str, address: Ipv4Addr) -> Result<Self> {
        Self::start_as(ns, namespace, address, false)
    }

    /// The same, over kernel MPTCP if asked for.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn start_as(
        ns: &Namespaces,
        namespace: &str,
        address: Ipv4Addr,
        over_mptcp: bool,
    ) -> Result<Self> {
        let base = ns.dir().join(format!("nginx-{namespace}"));
        let root = base.join("root");
        fs::create_dir_all(&root).map_err(LabError::io(root.display().to_string()))?;
        let dir = base.display();
        // MPTCP joins arrive at the server's other addresses.
        let listen = if over_mptcp { Ipv4Addr::UNSPECIFIED } else { address };
        let conf = format!(
            "daemon off; user root; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; sendfile on; client_max_body_size 0;\n\
               client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
               fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
               server {{ listen {listen}:{HTTP_PORT}; listen {listen}:{OTHER_PORT}; root {dir}/root; location / {{ dav_methods PUT; }} }} }}\n"
        );
        let path = base.join("nginx.conf");
        fs::write(&path, conf).map_err(LabError::io(path.display().to_string()))?;
        let nginx = Cmd::line(&format!("nginx -p {dir} -e {dir}/error.log -c {}", path.display()));
        let nginx = if over_mptcp { mptcp::wrap(&nginx) } else { nginx };
        let mut process = nginx
            .in_namespace(&ns.name(namespace))
            .start(ns.dir(), &format!("nginx-{namespace}"))?;
        super::tools::wait_for_listener(ns, namespace, HTTP_PORT, &mut process)?;
        Ok(Self { _process: process, root, address })
    }

    /// Folder of the served and accepted files.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Fetches a file that lies in the server's folder; `alongside` is called while it runs.
    ///
    /// # Errors
    /// curl fails or takes longer than 90 s.
    pub fn fetch(&self, ns: &Namespaces, from: &str, file: &str) -> Result<Transfer> {
        let copy = ns.dir().join(format!("{from}-{file}"));
        let url = format!("http://{}:{HTTP_PORT}/{file}", self.address);
        let seconds = curl(ns, from, &["-o", &copy.display().to_string(), &url])?;
        compare(&self.root.join(file), &copy, seconds)
    }

    /// Sends a local file to the server's folder.
    ///
    /// # Errors
    /// curl fails or takes longer than 90 s.
    pub fn send(&self, ns: &Namespaces, from: &str, local: &Path) -> Result<Transfer> {
        let name = "uploaded";
        let url = format!("http://{}:{HTTP_PORT}/{name}", self.address);
        // No "100 Continue" pause, so that the time is the transfer's.
        let local_name = local.display().to_string();
        let seconds = curl(ns, from, &["-H", "Expect:", "-T", &local_name, &url])?;
        compare(local, &self.root.join(name), seconds)
    }
}

/// Runs curl in a namespace and gives the transfer's seconds.
fn curl(ns: &Namespaces, namespace: &str, args: &[&str]) -> Result<f64> {
    let limit = PATIENCE.as_secs().to_string();
    let mut cmd = Cmd::new(
        "curl",
        &["-sS", "--fail", "--connect-timeout", "10", "--max-time", &limit, "-w", "%{time_total}"],
    );
    for &a in args {
        cmd = cmd.arg(a);
    }
    let out = cmd
        .in_namespace(&ns.name(namespace))
        .start(ns.dir(), &format!("curl-{namespace}"))?
        .finish(PATIENCE + Duration::from_secs(5))?;
    // A PUT answers with a small page before the time.
    out.rsplit(['\n', '>', '\r'])
        .find_map(|w| w.trim().parse().ok())
        .ok_or_else(|| LabError::unexpected(format!("curl printed no time: {out}")))
}

fn compare(original: &Path, copy: &Path, seconds: f64) -> Result<Transfer> {
    let bytes = fs::metadata(original).map_err(LabError::io(original.display().to_string()))?.len();
    #[expect(clippy::cast_precision_loss, reason = "file sizes are far below 2^53")]
    let mbit_s = bytes as f64 * 8.0 / 1e6 / seconds.max(1e-6);
    Ok(Transfer { intact: sha256(original)? == sha256(copy)?, mbit_s })
}

fn sha256(path: &Path) -> Result<String> {
    let out = Cmd::new("sha256sum", &[&path.display().to_string()]).run()?;
    out.split_whitespace()
        .next()
        .map(str::to_owned)
        .ok_or_else(|| LabError::unexpected("sha256sum printed nothing"))
}

/// Writes a file of pseudo-random bytes (splitmix64), so that no byte sequence repeats.
///
/// # Errors
/// The file cannot be written.
pub fn make_file(path: &Path, bytes: u64, seed: u64) -> Result<()> {
    let io = || LabError::io(path.display().to_string());
    let mut out = BufWriter::new(File::create(path).map_err(io())?);
    let mut state = seed;
    for _ in 0..bytes / 8 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.write_all(&(z ^ (z >> 31)).to_le_bytes()).map_err(io())?;
    }
    out.flush().map_err(io())
}

/// What segments of one direction of one HTTP exchange carried besides the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// Segments with user data.
    pub segments: u64,
    /// Segments in which a byte differs from the stream HTTP header + file, or that reach beyond its end.
    pub foreign_segments: u64,
}

/// Compares every captured segment towards `dport` (or from `sport`) with the stream it should be part
/// of: an HTTP header (up to the first empty line) and then exactly `file`.
///
/// # Errors
/// The capture lacks the SYN or the first segment.
pub fn check_segments(
    frames: &[Frame],
    dport: Option<u16>,
    sport: Option<u16>,
    file: &[u8],
) -> Result<Foreign> {
    let segments: Vec<_> = frames
        .iter()
        .filter_map(Frame::tcp)
        .filter(|s| dport.is_none_or(|p| s.dport == p) && sport.is_none_or(|p| s.sport == p))
        .collect();
    let first =
        segments.iter().find(|s| s.syn).map(|s| s.seq.wrapping_add(1)).ok_or_else(|| {
            LabError::unexpected(format!(
                "the capture holds no SYN among {} segments of {} frames",
                segments.len(),
                frames.len()
            ))
        })?;
    let begin = segments
        .iter()
        .find(|s| s.seq == first && !s.syn && s.payload_len > 0)
        .ok_or_else(|| LabError::unexpected("the capture holds no first segment"))?;
    let header = begin
        .payload
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| at + 4)
        .ok_or_else(|| LabError::unexpected("the first segment holds no whole HTTP header"))?;
    let mut expected = begin.payload.get(..header).unwrap_or_default().to_vec();
    expected.extend_from_slice(file);
    let mut report = Foreign::default();
    for s in segments.iter().filter(|s| s.payload_len > 0) {
        report.segments += 1;
        let at = s.seq.wrapping_sub(first) as usize;
        let same = at
            .checked_add(s.payload_len)
            .and_then(|end| expected.get(at..end))
            .is_some_and(|e| e == s.payload);
        if !same || s.syn {
            report.foreign_segments += 1;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(seq: u32, syn: bool, payload: &[u8]) -> Frame {
        let mut data = vec![0; 54];
        data[12] = 8;
        data[14] = 0x45;
        data[23] = 6;
        let total = u16::try_from(40 + payload.len()).expect("small");
        data[16..18].copy_from_slice(&total.to_be_bytes());
        data[36..38].copy_from_slice(&80_u16.to_be_bytes());
        data[38..42].copy_from_slice(&seq.to_be_bytes());
        data[46] = 5 << 4;
        data[47] = if syn { 2 } else { 0x10 };
        data.extend_from_slice(payload);
        Frame { at: 0, wire_len: 0, data }
    }

    #[test]
    fn appended_bytes_are_foreign() {
        let file = b"0123456789";
        let head = b"PUT / HTTP/1.1\r\n\r\n";
        let n = u32::try_from(head.len()).expect("small");
        let start = u32::MAX - 3;
        let data = start.wrapping_add(1);
        let good = vec![
            segment(start, true, b""),
            segment(data, false, head),
            segment(data.wrapping_add(n + 5), false, b"56789"),
            segment(data.wrapping_add(n), false, b"01234"),
        ];
        let r = check_segments(&good, Some(80), None, file).expect("whole capture");
        assert_eq!(r, Foreign { segments: 3, foreign_segments: 0 });
        let mut bad = good.clone();
        bad.push(segment(data.wrapping_add(n + 5), false, b"56789\xB5"));
        bad.push(segment(data.wrapping_add(n), false, b"01x34"));
        let r = check_segments(&bad, Some(80), None, file).expect("whole capture");
        assert_eq!(r.foreign_segments, 2);
        assert!(check_segments(&good[1..], Some(80), None, file).is_err());
    }
}
