//! `[[port]]`, its own mistakes and those between ports.

use super::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "no port name",
        edits: &[("name = \"lan\"\n", "")],
        says: "6: [port #1] name: missing; fix: write name = \"wan1\"",
    },
    Mistake {
        name: "port name twice",
        edits: &[("name = \"wan2\"\n", "name = \"wan1\"\n")],
        says: "18: [port wan1] name: \"wan1\" is already the name of the port on line 12; fix: give each port a name of its own",
    },
    Mistake {
        name: "no device",
        edits: &[("device = \"net_tap0,iface=tap0\"\n", "")],
        says: "17: [port wan2] device: missing; fix: write device = \"net_af_xdp0,iface=wan1\"",
    },
    Mistake {
        name: "interface as device",
        edits: &[("device = \"net_tap0,iface=tap0\"", "device = \"eth0\"")],
        says: "19: [port wan2] device: \"eth0\" is neither a PCI address nor a virtual device; fix: write \"net_af_xdp0,iface=eth0\"",
    },
    Mistake {
        name: "unknown driver",
        edits: &[("\"net_af_xdp1,iface=dsl0\"", "\"net_afxdp1,iface=dsl0\"")],
        says: "13: [port wan1] device: \"net_afxdp1,iface=dsl0\" is a virtual device of no known driver; fix: write \"net_af_xdp1,iface=dsl0\"",
    },
    Mistake {
        name: "device without interface",
        edits: &[("\"net_af_xdp1,iface=dsl0\"", "\"net_af_xdp1\"")],
        says: "13: [port wan1] device: \"net_af_xdp1\" does not say which kernel interface to use; fix: write \"net_af_xdp1,iface=wan1\"",
    },
    Mistake {
        name: "device with a bad argument",
        edits: &[("\"net_tap0,iface=tap0\"", "\"net_tap0,iface\"")],
        says: "19: [port wan2] device: \"net_tap0,iface\" has the malformed argument \"iface\"; fix: write each argument once, as key=value, with commas between them",
    },
    Mistake {
        name: "long interface",
        edits: &[("\"net_tap0,iface=tap0\"", "\"net_tap0,iface=abcdefghijklmnop\"")],
        says: "19: [port wan2] device: \"net_tap0,iface=abcdefghijklmnop\" names an interface that is longer than 15 characters; fix: write 1 to 15 letters, digits, '-', '_' or '.' behind iface=",
    },
    Mistake {
        name: "device twice",
        edits: &[("\"net_af_xdp1,iface=dsl0\"", "\"net_af_xdp0,iface=dsl0\"")],
        says: "13: [port wan1] device: \"net_af_xdp0\" is already in use on line 8; fix: give each port a device of its own",
    },
    Mistake {
        name: "PCI device twice",
        edits: &[
            ("\"net_af_xdp1,iface=dsl0\"", "\"01:00.0\""),
            ("\"net_tap0,iface=tap0\"", "\"0000:01:00.0\""),
        ],
        says: "19: [port wan2] device: \"0000:01:00.0\" is already in use on line 13; fix: give each port a device of its own",
    },
    Mistake {
        name: "interface twice",
        edits: &[("iface=dsl0", "iface=lan0")],
        says: "13: [port wan1] device: interface lan0 is already in use on line 8; fix: give each port an interface of its own",
    },
    Mistake {
        name: "no role",
        edits: &[("role = \"lan\"\n", "")],
        says: "6: [port lan] role: missing; fix: write role = \"lan\" or \"wan\"",
    },
    Mistake {
        name: "role",
        edits: &[("role = \"lan\"", "role = \"inside\"")],
        says: "9: [port lan] role: \"inside\" is not one of \"lan\", \"wan\"; fix: write role = \"lan\" or \"wan\"",
    },
    Mistake {
        name: "role in capitals",
        edits: &[("role = \"lan\"", "role = \"LAN\"")],
        says: "9: [port lan] role: \"LAN\" is not one of \"lan\", \"wan\"; fix: write \"lan\"",
    },
    Mistake {
        name: "no wan port",
        edits: &[("role = \"wan\"\n", "role = \"lan\"\n")],
        says: "6: [port]: no port has role = \"wan\"; fix: add a [[port]] with role = \"wan\" for each uplink",
    },
    Mistake {
        name: "no lan port",
        edits: &[("role = \"lan\"\n", "role = \"wan\"\n")],
        says: "6: [port]: no port has role = \"lan\"; fix: add a [[port]] with role = \"lan\" towards the hosts",
    },
    Mistake {
        name: "address without length",
        edits: &[("\"192.0.2.10/24\"", "\"192.0.2.10\"")],
        says: "15: [port wan1] addresses: \"192.0.2.10\" has no prefix length; fix: write \"192.0.2.10/24\"",
    },
    Mistake {
        name: "address that is none",
        edits: &[("\"192.0.2.10/24\"", "\"192.0.2.256/24\"")],
        says: "15: [port wan1] addresses: \"192.0.2.256/24\" is not an address with a prefix length; fix: write addresses = [\"10.1.0.1/24\"]",
    },
    Mistake {
        name: "address of the subnet",
        edits: &[("\"192.0.2.10/24\"", "\"192.0.2.0/24\"")],
        says: "15: [port wan1] addresses: \"192.0.2.0/24\" is the subnet itself, not an address in it; fix: write an address inside it, such as \"192.0.2.1/24\"",
    },
    Mistake {
        name: "broadcast address",
        edits: &[("\"192.0.2.10/24\"", "\"192.0.2.255/24\"")],
        says: "15: [port wan1] addresses: \"192.0.2.255/24\" is the broadcast address of its subnet; fix: write an address inside it, such as \"192.0.2.1/24\"",
    },
    Mistake {
        name: "loopback address",
        edits: &[("\"192.0.2.10/24\"", "\"127.0.0.1/8\"")],
        says: "15: [port wan1] addresses: \"127.0.0.1/8\" is a loopback address; fix: write addresses = [\"10.1.0.1/24\"]",
    },
    Mistake {
        name: "addresses no list",
        edits: &[("[\"192.0.2.10/24\"]", "\"192.0.2.10/24\"")],
        says: "15: [port wan1] addresses: is text, not a list; fix: write addresses = [\"10.1.0.1/24\"]",
    },
    Mistake {
        name: "address twice",
        edits: &[("\"203.0.113.10/24\"", "\"203.0.113.10/24\", \"192.0.2.10/24\"")],
        says: "21: [port wan2] addresses: 192.0.2.10 is already an address of ours on line 15; fix: write each address once",
    },
    Mistake {
        name: "gateway outside",
        edits: &[("gateway = \"192.0.2.1\"", "gateway = \"192.0.3.1\"")],
        says: "16: [port wan1] gateway: 192.0.3.1 is in none of the port's subnets (192.0.2.0/24); fix: write an address inside them",
    },
    Mistake {
        name: "gateway of another family",
        edits: &[("gateway = \"192.0.2.1\"", "gateway = \"2001:db8::1\"")],
        says: "16: [port wan1] gateway: 2001:db8::1 is IPv6, but the port has no IPv6 address; fix: add an IPv6 address to addresses, or remove 2001:db8::1",
    },
    Mistake {
        name: "gateway is ourselves",
        edits: &[("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.10\"")],
        says: "16: [port wan1] gateway: 192.0.2.10 is the port's own address; fix: write the address of the next router",
    },
    Mistake {
        name: "two gateways of one family",
        edits: &[("gateway = \"192.0.2.1\"", "gateway = [\"192.0.2.1\", \"192.0.2.2\"]")],
        says: "16: [port wan1] gateway: 192.0.2.2 is a second IPv4 next hop; fix: keep one per family",
    },
    Mistake {
        name: "gateway with a length",
        edits: &[("gateway = \"192.0.2.1\"", "gateway = \"192.0.2.1/24\"")],
        says: "16: [port wan1] gateway: \"192.0.2.1/24\" has a prefix length; fix: write \"192.0.2.1\"",
    },
    Mistake {
        name: "gateway that is no address",
        edits: &[("gateway = \"192.0.2.1\"", "gateway = \"router\"")],
        says: "16: [port wan1] gateway: \"router\" is not an IP address; fix: write gateway = \"10.1.0.254\"",
    },
    Mistake {
        name: "small mtu",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nmtu = 500\n")],
        says: "13: [port wan1] mtu: 500 is outside 576…9216; fix: write mtu = 1500",
    },
    Mistake {
        name: "large mtu",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nmtu = 9217\n")],
        says: "13: [port wan1] mtu: 9217 is outside 576…9216; fix: write mtu = 1500",
    },
    Mistake {
        name: "mtu with a unit",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nmtu = \"1500 B\"\n")],
        says: "13: [port wan1] mtu: is text, not an integer; fix: write mtu = 1500",
    },
    Mistake {
        name: "mtu too small for IPv6",
        edits: &[("name = \"lan\"\n", "name = \"lan\"\nmtu = 1200\n")],
        says: "8: [port lan] mtu: 1200 is too small for the port's IPv6 address; fix: write mtu = 1280 or more (RFC 8200)",
    },
    Mistake {
        name: "mtu too large for AF_XDP",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nmtu = 9000\n")],
        says: "13: [port wan1] mtu: 9000 is more than AF_XDP carries (3394); fix: write mtu = 3394 or less",
    },
    Mistake {
        name: "mtu too large for a port with AF_XDP beside",
        edits: &[("name = \"wan2\"\n", "name = \"wan2\"\nmtu = 9000\n")],
        says: "19: [port wan2] mtu: 9000 is more than fits beside a port with AF_XDP; fix: write mtu = 3394 or less",
    },
    Mistake {
        name: "rate unit",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nrate = \"40 Mbps\"\n")],
        says: "13: [port wan1] rate: \"Mbps\" is not a unit of rate (bit/s, kbit/s, Mbit/s, Gbit/s); fix: write \"40 Mbit/s\"",
    },
    Mistake {
        name: "rate without unit",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nrate = \"40\"\n")],
        says: "13: [port wan1] rate: \"40\" has no unit; fix: write rate = \"40 Mbit/s\"",
    },
    Mistake {
        name: "rate as number",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nrate = 40\n")],
        says: "13: [port wan1] rate: 40 has no unit; fix: write rate = \"40 Mbit/s\"",
    },
    Mistake {
        name: "strange rate",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nrate = \"40 furlongs\"\n")],
        says: "13: [port wan1] rate: \"furlongs\" is not a unit of rate (bit/s, kbit/s, Mbit/s, Gbit/s); fix: write rate = \"40 Mbit/s\"",
    },
    Mistake {
        name: "negative cost",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\ncost = -1\n")],
        says: "13: [port wan1] cost: -1 is outside 0…4294967295; fix: write cost = 0",
    },
    Mistake {
        name: "cost as decimal",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\ncost = 1.5\n")],
        says: "13: [port wan1] cost: is a decimal number, not an integer; fix: write cost = 0",
    },
    Mistake {
        name: "rx lcore",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nrx_lcores = [0, 9]\n")],
        says: "13: [port wan1] rx_lcores: CPU 9 does not exist on this machine; fix: write one of 0…1",
    },
    Mistake {
        name: "busy rx lcore",
        edits: &[
            ("workers = [1]", "workers = [1]\nidle = \"busy\""),
            ("name = \"wan1\"\n", "name = \"wan1\"\nrx_lcores = [1, 0]\n"),
        ],
        says: "14: [port wan1] rx_lcores: CPU 0 is also the control thread's; fix: name another CPU, or write [lcores] idle = \"adaptive\"",
    },
    Mistake {
        name: "rx lcore twice",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nrx_lcores = [1, 1]\n")],
        says: "13: [port wan1] rx_lcores: CPU 1 is named twice; fix: name each CPU once",
    },
    Mistake {
        name: "no tx lcore",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\ntx_lcores = []\n")],
        says: "13: [port wan1] tx_lcores: is empty; fix: write tx_lcores = [1]",
    },
    Mistake {
        name: "tx lcore not a list",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\ntx_lcores = 1\n")],
        says: "13: [port wan1] tx_lcores: is an integer, not a list; fix: write tx_lcores = [1]",
    },
    Mistake {
        name: "kernel as boolean",
        edits: &[("kernel = \"off\"", "kernel = false")],
        says: "23: [port wan2] kernel: is false, not \"on\" or \"off\"; fix: write kernel = \"off\"",
    },
    Mistake {
        name: "kernel word",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nkernel = \"maybe\"\n")],
        says: "13: [port wan1] kernel: \"maybe\" is not one of \"on\", \"off\"; fix: write kernel = \"on\"",
    },
    Mistake {
        name: "long kernel interface",
        edits: &[(
            "name = \"wan1\"\n",
            "name = \"wan1\"\nkernel_interface = \"mp-0123456789abc\"\n",
        )],
        says: "13: [port wan1] kernel_interface: \"mp-0123456789abc\" is longer than 15 characters; fix: write kernel_interface = \"mp-wan1\"",
    },
    Mistake {
        name: "long default kernel interface",
        edits: &[("name = \"wan1\"\n", "name = \"uplink-to-berlin\"\n")],
        says: "11: [port uplink-to-berlin] kernel_interface: missing, and the default \"mp-uplink-to-berlin\" is longer than 15 characters; fix: write kernel_interface = \"mp-…\"",
    },
    Mistake {
        name: "kernel interface twice",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nkernel_interface = \"mp-lan\"\n")],
        says: "13: [port wan1] kernel_interface: interface mp-lan is already in use on line 6; fix: give each port an interface of its own",
    },
    Mistake {
        name: "kernel interface is a device",
        edits: &[("name = \"wan1\"\n", "name = \"wan1\"\nkernel_interface = \"tap0\"\n")],
        says: "20: [port wan2] device: interface tap0 is already in use on line 13; fix: give each port an interface of its own",
    },
    Mistake {
        name: "kernel interface without kernel",
        edits: &[("name = \"wan2\"\n", "name = \"wan2\"\nkernel_interface = \"mp-x\"\n")],
        says: "19: [port wan2] kernel_interface: there is no kernel interface with kernel = \"off\"; fix: remove it, or write kernel = \"on\"",
    },
    Mistake {
        name: "neighbours with kernel",
        edits: &[("kernel = \"off\"\n", "")],
        says: "23: [port wan2] neighbours: static neighbours, but the kernel resolves next hops; fix: remove them, or write kernel = \"off\"",
    },
    Mistake {
        name: "no neighbours",
        edits: &[(
            "neighbours = [{ address = \"203.0.113.1\", mac = \"02:00:00:00:01:01\" }]\n",
            "",
        )],
        says: "17: [port wan2] neighbours: missing, and kernel = \"off\" resolves no next hop; fix: write neighbours = [{ address = \"10.1.0.254\", mac = \"02:00:00:00:00:01\" }]",
    },
    Mistake {
        name: "no neighbour for the gateway",
        edits: &[("address = \"203.0.113.1\"", "address = \"203.0.113.2\"")],
        says: "24: [port wan2] neighbours: has no entry for the gateway 203.0.113.1; fix: add { address = \"203.0.113.1\", mac = \"…\" }",
    },
    Mistake {
        name: "neighbour without mac",
        edits: &[(", mac = \"02:00:00:00:01:01\"", "")],
        says: "24: [port wan2] neighbours: has no mac; fix: write neighbours = [{ address = \"10.1.0.254\", mac = \"02:00:00:00:00:01\" }]",
    },
    Mistake {
        name: "neighbour with a strange key",
        edits: &[("mac = \"02", "max = \"02")],
        says: "24: [port wan2] neighbours: has the unknown key max; fix: write mac",
    },
    Mistake {
        name: "multicast mac",
        edits: &[("\"02:00:00:00:01:01\"", "\"01:00:5e:00:00:01\"")],
        says: "24: [port wan2] neighbours: \"01:00:5e:00:00:01\" is not the address of one host; fix: write neighbours = [{ address = \"10.1.0.254\", mac = \"02:00:00:00:00:01\" }]",
    },
    Mistake {
        name: "short mac",
        edits: &[("\"02:00:00:00:01:01\"", "\"02:00:00:00:01\"")],
        says: "24: [port wan2] neighbours: \"02:00:00:00:01\" is not six hexadecimal bytes with colons; fix: write neighbours = [{ address = \"10.1.0.254\", mac = \"02:00:00:00:00:01\" }]",
    },
    Mistake {
        name: "wan without address",
        edits: &[("addresses = [\"203.0.113.10/24\"]\ngateway = \"203.0.113.1\"\n", "")],
        says: "17: [port wan2] addresses: a wan port with kernel = \"off\" has no DHCP and needs an address; fix: write addresses = [\"198.51.100.2/24\"]",
    },
];
