//! What one can try while a lab is up: commands that work as they are printed.

use std::fmt::Write;
use std::path::Path;

use crate::daemon::run_dir;
use crate::plan::{self, Family, SERVICE_PORT, Spot};
use crate::program::log_file;
use crate::services::{BOTH, FIRST};
use crate::session::Session;
use crate::world::{CLUSTER, folder, netns_file};

/// Commands for a session, one per line under headings.
#[must_use]
pub fn invitation(session: &Session, llcli: &Path) -> String {
    let plan = session.world().plan();
    let llcli = format!("{} --socket {}", llcli.display(), run_dir(plan, 1).display());
    let enter = |spot| format!("nsenter --net={}", netns_file(plan, spot).display());
    let pod = enter(Spot::Pod(1, 1));
    let node = session.daemons().first().map_or(0, crate::daemon::Daemon::pid);
    let remote = plan::pod(2, 1, Family::V4);
    let remote_v6 = plan::pod(2, 1, Family::V6);
    let vip = BOTH.address(Family::V4);
    let cluster = folder(plan).join(CLUSTER);
    let mut text = String::new();
    let mut heading = |title: &str, lines: &[String]| {
        let _ = writeln!(text, "\n  {title}");
        for line in lines {
            let _ = writeln!(text, "    {line}");
        }
    };
    heading(
        "in a pod of node 1 (10.244.1.10; others: n1-pod2, n2-pod1, …)",
        &[
            format!("{pod} bash"),
            format!("{pod} ping {remote}"),
            format!("{pod} traceroute {remote_v6}"),
            format!("{pod} bash -c 'exec 3<>/dev/tcp/{vip}/{SERVICE_PORT}; echo who >&3; cat <&3'"),
        ],
    );
    heading(
        "what its dataplane knows and does",
        &[
            format!("{llcli} get ports"),
            format!("{llcli} get services"),
            format!("{llcli} flows --watch"),
            format!("{llcli} counters"),
            format!("{llcli} drops --watch"),
            format!("{llcli} explain --port hs1 --hex {}", echo_request(session)),
        ],
    );
    heading(
        "change the cluster: both agents follow its manifests",
        &[
            format!("ls {}", cluster.display()),
            format!("rm {}   # n1-pod3 accepts everybody", cluster.join("policies.yaml").display()),
            format!("tail -f {}", log_file(plan, 1, "loxi-agent").display()),
        ],
    );
    heading(
        "behind the scenes",
        &[
            format!("nsenter --target {node} --net --mount bash   # node 1"),
            format!("nsenter --net={} ip -br link", run_dir(plan, 1).join("netns/loxilight").display()),
            format!("{} tcpdump -ni wire udp port 4789", enter(Spot::Wire)),
        ],
    );
    text
}

/// The first pod's echo request to the first service, as a frame in hex.
fn echo_request(session: &Session) -> String {
    let plan = session.world().plan();
    let mut frame = plan.switch_mac(1).0.to_vec();
    frame.extend(plan.pod_mac(1, 1).0);
    frame.extend([8, 0]);
    let (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) =
        (plan::pod(1, 1, Family::V4), FIRST.address(Family::V4))
    else {
        return String::new();
    };
    let mut ip = vec![0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 1, 0, 0];
    ip.extend(from.octets());
    ip.extend(to.octets());
    let check = checksum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&check);
    let mut echo = vec![8, 0, 0, 0, 0, 1, 0, 1];
    let check = checksum(&echo).to_be_bytes();
    echo[2..4].copy_from_slice(&check);
    frame.extend(ip);
    frame.extend(echo);
    frame.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
