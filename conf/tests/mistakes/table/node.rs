//! `[node]`, `[eal]`, `[lcores]` and `[api]`.

use super::Mistake;

pub const MISTAKES: &[Mistake] = &[
    Mistake {
        name: "no node name",
        edits: &[("[node]\nname = \"edge\"\n", "[node]\n")],
        says: "1: [node] name: missing; fix: write name = \"edge\"",
    },
    Mistake {
        name: "no node section",
        edits: &[("[node]\nname = \"edge\"\nid = \"02:00:00:00:00:0a\"\n", "")],
        says: "1: [node] name: missing; fix: add [node] with name = \"edge\"",
    },
    Mistake {
        name: "node name",
        edits: &[("\"edge\"", "\"edge 1\"")],
        says: "2: [node] name: \"edge 1\" has characters other than letters, digits, '-', '_' and '.'; fix: write name = \"edge\"",
    },
    Mistake {
        name: "long node name",
        edits: &[("\"edge\"", "\"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\"")],
        says: "2: [node] name: \"eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee\" is longer than 32 characters; fix: write name = \"edge\"",
    },
    Mistake {
        name: "node id",
        edits: &[("id = \"02:00:00:00:00:0a\"", "id = \"02:00:00:00:00\"")],
        says: "3: [node] id: \"02:00:00:00:00\" is not six hexadecimal bytes with colons; fix: write id = \"02:00:00:00:00:0a\"",
    },
    Mistake {
        name: "node id zero",
        edits: &[("id = \"02:00:00:00:00:0a\"", "id = \"00:00:00:00:00:00\"")],
        says: "3: [node] id: \"00:00:00:00:00:00\" is nobody's id; fix: write id = \"02:00:00:00:00:0a\"",
    },
    Mistake {
        name: "node id as number",
        edits: &[("id = \"02:00:00:00:00:0a\"", "id = 2")],
        says: "3: [node] id: is an integer, not text; fix: write id = \"02:00:00:00:00:0a\"",
    },
    Mistake {
        name: "hugepages",
        edits: &[("[lcores]\n", "[eal]\nhugepages = \"yes\"\n[lcores]\n")],
        says: "5: [eal] hugepages: \"yes\" is not one of \"auto\", \"off\", \"on\"; fix: write hugepages = \"auto\"",
    },
    Mistake {
        name: "hugepages bool",
        edits: &[("[lcores]\n", "[eal]\nhugepages = true\n[lcores]\n")],
        says: "5: [eal] hugepages: is a boolean, not text; fix: write hugepages = \"auto\"",
    },
    Mistake {
        name: "memory unit",
        edits: &[("[lcores]\n", "[eal]\nmemory = \"256 MB\"\n[lcores]\n")],
        says: "5: [eal] memory: \"MB\" is not a unit of size (B, KiB, MiB, GiB); fix: write \"256 MiB\"",
    },
    Mistake {
        name: "memory without unit",
        edits: &[("[lcores]\n", "[eal]\nmemory = 256\n[lcores]\n")],
        says: "5: [eal] memory: 256 has no unit; fix: write memory = \"256 MiB\"",
    },
    Mistake {
        name: "memory too small",
        edits: &[("[lcores]\n", "[eal]\nmemory = \"1 MiB\"\n[lcores]\n")],
        says: "5: [eal] memory: \"1 MiB\" is outside 16 MiB … 1024 GiB; fix: write memory = \"256 MiB\"",
    },
    Mistake {
        name: "file prefix",
        edits: &[("[lcores]\n", "[eal]\nfile_prefix = \"a/b\"\n[lcores]\n")],
        says: "5: [eal] file_prefix: \"a/b\" has characters other than letters, digits, '-', '_' and '.'; fix: write file_prefix = \"mpipd-edge\"",
    },
    Mistake {
        name: "EAL option of ours",
        edits: &[(
            "[lcores]\n",
            "[eal]\nextra = [\"--log-level=8\", \"--file-prefix=x\"]\n[lcores]\n",
        )],
        says: "5: [eal] extra: mpipd sets \"--file-prefix\" itself; fix: use file_prefix",
    },
    Mistake {
        name: "worker that does not exist",
        edits: &[("workers = [1]", "workers = [1, 2]")],
        says: "5: [lcores] workers: CPU 2 does not exist on this machine; fix: write one of 0…1",
    },
    Mistake {
        name: "worker twice",
        edits: &[("workers = [1]", "workers = [1, 1]")],
        says: "5: [lcores] workers: CPU 1 is named twice; fix: name each CPU once",
    },
    Mistake {
        name: "no worker",
        edits: &[("workers = [1]", "workers = []")],
        says: "5: [lcores] workers: is empty; fix: write workers = [1]",
    },
    Mistake {
        name: "workers no list",
        edits: &[("workers = [1]", "workers = 1")],
        says: "5: [lcores] workers: is an integer, not a list; fix: write workers = [1]",
    },
    Mistake {
        name: "negative cpu",
        edits: &[("workers = [1]", "workers = [-1]")],
        says: "5: [lcores] workers: -1 is outside 0…8191; fix: write workers = [1]",
    },
    Mistake {
        name: "control does not exist",
        edits: &[("workers = [1]", "control = 8\nworkers = [1]")],
        says: "5: [lcores] control: CPU 8 does not exist on this machine; fix: write one of 0…1",
    },
    Mistake {
        name: "busy control",
        edits: &[("workers = [1]", "control = 1\nworkers = [1]\nidle = \"busy\"")],
        says: "5: [lcores] control: CPU 1 is also a worker's, which never yields with idle = \"busy\"; fix: name a CPU of its own, or write idle = \"adaptive\"",
    },
    Mistake {
        name: "idle",
        edits: &[("workers = [1]", "workers = [1]\nidle = \"bussy\"")],
        says: "6: [lcores] idle: \"bussy\" is not one of \"adaptive\", \"busy\"; fix: write \"busy\"",
    },
    Mistake {
        name: "relative socket",
        edits: &[("[lcores]\n", "[api]\nsocket = \"edge.sock\"\n[lcores]\n")],
        says: "5: [api] socket: \"edge.sock\" is not an absolute path; fix: write socket = \"/run/mpipd/edge.sock\"",
    },
    Mistake {
        name: "long socket",
        edits: &[(
            "[lcores]\n",
            "[api]\nsocket = \"/sssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss\"\n[lcores]\n",
        )],
        says: "5: [api] socket: is 108 bytes long, a socket's path at most 107; fix: write socket = \"/run/mpipd/edge.sock\"",
    },
];
