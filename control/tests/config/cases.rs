/// What is changed in `GOOD` (nothing: appended), to what, and the whole answer.
const CASES: &[(&str, &str, &str)] = &[
    (
        "workers = 2",
        "workers = 65",
        "f.toml:2: director.workers: 65 is not a number of workers; accepted: 1 to 64",
    ),
    (
        "workers = 2",
        "workers = \"two\"",
        "f.toml:2: director.workers: \"two\" is not a number of workers; accepted: 1 to 64",
    ),
    (
        "workers = 2",
        "workers = -1",
        "f.toml:2: director.workers: -1 is not a number of workers; accepted: 1 to 64",
    ),
    (
        "workers = 2",
        "wokers = 2",
        "f.toml:2: director.wokers: unknown key; did you mean `workers`?",
    ),
    (
        "workers = 2",
        "threads = 2",
        "f.toml:2: director.threads: unknown key; known here: workers, connections, servers, half_open_percent, idle, pin, control, netlink, proc, table, state",
    ),
    (
        "workers = 2",
        "workers = ",
        "f.toml:2: syntax: string values must be quoted, expected literal string",
    ),
    (
        "workers = 2",
        "idle = \"slep\"",
        "f.toml:2: director.idle: \"slep\" is not what a worker does without packets; accepted: \"sleep\", \"poll\"",
    ),
    (
        "workers = 2",
        "workers = 2\npin = [1]",
        "f.toml:3: director.pin: [1] is not a choice of CPUs; accepted: true (worker N on CPU N), false, or one CPU number (0 to 1023) per worker, each once, such as [2, 3]",
    ),
    (
        "workers = 2",
        "workers = 2\npin = [1, 1]",
        "f.toml:3: director.pin: [1, 1] is not a choice of CPUs; accepted: true (worker N on CPU N), false, or one CPU number (0 to 1023) per worker, each once, such as [2, 3]",
    ),
    (
        "workers = 2",
        "pin = 3",
        "f.toml:2: director.pin: 3 is not a choice of CPUs; accepted: true (worker N on CPU N), false, or one CPU number (0 to 1023) per worker, each once, such as [2, 3]",
    ),
    (
        "workers = 2",
        "workers = 2\npin = [0, 1, 2]",
        "f.toml:3: director.pin: 3 entries are too many; accepted: at most 2",
    ),
    (
        "workers = 2",
        "netlink = \"/run/uvs.sock\"",
        "f.toml:2: director.netlink: \"/run/uvs.sock\" is not a socket for clients of the kernel's IPVS; accepted: \"unix:\" and an absolute path of at most 100 bytes, or \"none\"",
    ),
    (
        "workers = 2",
        "proc = \"uvs/proc\"",
        "f.toml:2: director.proc: \"uvs/proc\" is not a folder for files in the kernel's format; accepted: an absolute path of at most 200 bytes, such as \"/run/uvs/proc\"",
    ),
    (
        "workers = 2",
        "table = \"uvs/table\"",
        "f.toml:2: director.table: \"uvs/table\" is not a file for the connection table; accepted: an absolute path of at most 200 bytes, on tmpfs or hugetlbfs, such as \"/dev/shm/uvs/table\"",
    ),
    (
        "workers = 2",
        "state = \"state.toml\"",
        "f.toml:2: director.state: \"state.toml\" is not a file for the state; accepted: an absolute path of at most 200 bytes, such as \"/var/lib/uvs/state.toml\"",
    ),
    (
        "workers = 2",
        "workers = 2\n[access]\nviewers = [\"alice\"]",
        "f.toml:4: access.viewers[0]: \"alice\" is not a caller; accepted: at most 256 of \"user:NAME\", \"uid:NUMBER\", \"group:NAME\", \"gid:NUMBER\", \"san:NAME\", such as [\"group:netops\", \"san:spiffe://example.org/deploy\"]",
    ),
    (
        "workers = 2",
        "workers = 2\n[access]\nrate = 0",
        "f.toml:4: access.rate: 0 is not a number of calls; accepted: 1 to 1000000",
    ),
    (
        "workers = 2",
        "workers = 2\n[access]\naudit = \"log\"",
        "f.toml:4: access.audit: \"log\" is not a file for the audit log; accepted: an absolute path of at most 200 bytes, such as \"/var/log/uvs/audit.jsonl\"",
    ),
    (
        "workers = 2",
        "workers = 2\n[access.tls]\nlisten = \"10.0.0.1\"\ncertificate = \"/c\"\nkey = \"/k\"\nclient_ca = \"/a\"",
        "f.toml:4: access.tls.listen: \"10.0.0.1\" is not an address and a port; accepted: an address and a port that is not 0, such as \"10.1.0.1:7443\" or \"[::]:7443\"",
    ),
    (
        "workers = 2",
        "workers = 2\n[access.tls]\nlisten = \"10.0.0.1:1\"\ncertificate = \"/c\"\nclient_ca = \"/a\"",
        "f.toml:3: access.tls.key: missing: a private key; accepted: an absolute path of at most 200 bytes to a file in PEM",
    ),
    (
        "workers = 2",
        "control = \"/run/x\"",
        "f.toml:2: director.control: \"/run/x\" is not a control socket; accepted: \"unix:\" and an absolute path of at most 100 bytes",
    ),
    (
        "workers = 2",
        "connections = 0",
        "f.toml:2: director.connections: 0 is not a number of connections; accepted: 1 to 1000000000",
    ),
    (
        "[director]",
        "[metrics]\nlisten = \"localhost:9107\"\n[director]",
        "f.toml:2: metrics.listen: \"localhost:9107\" is not an address to listen at; accepted: an IP address of this host and a port above 0, such as \"127.0.0.1:9107\" or \"[::1]:9107\"",
    ),
    (
        "[director]",
        "[metrics]\nlisten = \"127.0.0.1:0\"\n[director]",
        "f.toml:2: metrics.listen: \"127.0.0.1:0\" is not an address to listen at; accepted: an IP address of this host and a port above 0, such as \"127.0.0.1:9107\" or \"[::1]:9107\"",
    ),
    (
        "[director]",
        "[metrics]\nserver = false\n[director]",
        "f.toml:2: metrics.server: unknown key; did you mean `servers`?",
    ),
    (
        "[director]",
        "[metrics]\nservers = 0\n[director]",
        "f.toml:2: metrics.servers: 0 is not a switch; accepted: true or false",
    ),
    (
        "[director]\nworkers = 2",
        "director = 3",
        "f.toml:1: director: 3 is not a table; accepted: [director] above its keys",
    ),
    (
        "[director]",
        "[[director]]",
        "f.toml:1: director: a list of tables is not a table; accepted: [director] above its keys",
    ),
    (
        "",
        "[colour]\nred = 1",
        "f.toml:39: colour: unknown key; known here: director, port, dpdk, route, lip_pool, mark, service, timeouts, ipvs, access, metrics",
    ),
    (
        "[port.wan]",
        "[port.\"w n\"]",
        "f.toml:4: port.\"w n\": w n is not a port's name; accepted: 1 to 32 letters, digits, '-' or '_'",
    ),
    (
        "driver = \"af_packet\"",
        "driver = \"dpkd\"",
        "f.toml:5: port.wan.driver: \"dpkd\" is not a driver; accepted: \"auto\", \"af_packet\", \"af_xdp\", \"dpdk\", \"pcap\", \"memory\"",
    ),
    (
        "driver = \"memory\"",
        "driver = \"auto\"",
        "f.toml:9: port.lan.interface: missing: what driver \"auto\" is to choose from; accepted: an `interface`, a `device` of DPDK, or both",
    ),
    (
        "driver = \"memory\"",
        "driver = \"memory\"\ndevice = \"net_null0\"",
        "f.toml:11: port.lan.device: only drivers \"auto\" and \"dpdk\" have it",
    ),
    (
        "driver = \"memory\"",
        "driver = \"pcap\"",
        "f.toml:9: port.lan.file: missing: the capture of driver \"pcap\"; accepted: a path to a pcap or pcapng file of Ethernet frames",
    ),
    (
        "driver = \"memory\"",
        "driver = \"pcap\"\nfile = \"\"",
        "f.toml:11: port.lan.file: \"\" is not a capture file; accepted: a path to a pcap or pcapng file of Ethernet frames",
    ),
    (
        "driver = \"memory\"",
        "driver = \"pcap\"\nfile = \"x\"\ninfinite = 1",
        "f.toml:12: port.lan.infinite: 1 is not a switch; accepted: true or false",
    ),
    (
        "driver = \"memory\"",
        "driver = \"pcap\"\nfile = \"x\"\noutput = \"x\"",
        "f.toml:11: port.lan.file: x is already port.lan.output; accepted: each once",
    ),
    (
        "driver = \"memory\"",
        "driver = \"memory\"\noutput = \"x\"",
        "f.toml:11: port.lan.output: only driver \"pcap\" reads and writes captures",
    ),
    (
        "interface = \"eth0\"",
        "",
        "f.toml:4: port.wan.interface: missing: the interface of driver \"af_packet\"; accepted: 1 to 15 bytes without '/', ':' or blanks",
    ),
    (
        "interface = \"eth0\"",
        "interface = \"a/b\"",
        "f.toml:6: port.wan.interface: \"a/b\" is not an interface name; accepted: 1 to 15 bytes without '/', ':' or blanks",
    ),
    (
        "driver = \"memory\"",
        "driver = \"memory\"\ninterface = \"eth0\"",
        "f.toml:11: port.lan.interface: only drivers \"auto\", \"af_packet\" and \"af_xdp\" have an interface",
    ),
    (
        "driver = \"memory\"",
        "driver = \"af_xdp\"",
        "f.toml:9: port.lan.interface: missing: the interface of driver \"af_xdp\"; accepted: 1 to 15 bytes without '/', ':' or blanks",
    ),
    (
        "driver = \"memory\"",
        "driver = \"af_xdp\"\ninterface = \"eth0\"",
        "f.toml:11: port.lan.interface: eth0 is already port.wan.interface; accepted: each once",
    ),
    (
        "driver = \"memory\"",
        "driver = \"af_xdp\"\ninterface = \"eth1\"\nchecksums = \"fix\"",
        "f.toml:12: port.lan.checksums: \"fix\" is not what to do about transport checksums; accepted: \"verify\", \"trust\"",
    ),
    (
        "driver = \"memory\"",
        "driver = \"memory\"\nchecksums = \"trust\"",
        "f.toml:11: port.lan.checksums: only drivers \"auto\" and \"af_xdp\" have this choice",
    ),
    (
        "driver = \"memory\"",
        "driver = \"af_packet\"\ninterface = \"eth0\"",
        "f.toml:11: port.lan.interface: eth0 is already port.wan.interface; accepted: each once",
    ),
    (
        "10.2.0.1/24",
        "10.2.0.1",
        "f.toml:11: port.lan.addresses[0]: \"10.2.0.1\" is not an own address with its prefix length; accepted: at most 64 unicast addresses with their prefix lengths, such as [\"10.1.0.1/24\", \"fd00:1::1/64\"]",
    ),
    (
        "10.2.0.1/24",
        "224.0.0.1/24",
        "f.toml:11: port.lan.addresses[0]: \"224.0.0.1/24\" is not an own address with its prefix length; accepted: at most 64 unicast addresses with their prefix lengths, such as [\"10.1.0.1/24\", \"fd00:1::1/64\"]",
    ),
    (
        "\"fd00:1::1/64\"",
        "\"10.1.0.1/24\"",
        "f.toml:7: port.wan.addresses[1]: 10.1.0.1 is already port.wan.addresses[0]; accepted: each once",
    ),
    (
        "10.3.0.0/16",
        "10.3.0.1/16",
        "f.toml:14: route[0].to: \"10.3.0.1/16\" is not a destination network; accepted: a network without host bits, such as \"10.3.0.0/16\" or \"::/0\"",
    ),
    (
        "via = \"10.2.0.254\"",
        "",
        "f.toml:13: route[0].via: missing: the way there; accepted: `via = \"GATEWAY\"`, `port = \"NAME\"` or both",
    ),
    (
        "via = \"10.2.0.254\"",
        "via = \"10.7.0.254\"",
        "f.toml:15: route[0].via: 10.7.0.254 is not an address in a port's subnet; accepted: 10.1.0.0/24, fd00:1::/64, 10.2.0.0/24",
    ),
    (
        "via = \"10.2.0.254\"",
        "via = \"fd00:1::fe\"",
        "f.toml:15: route[0].via: fd00:1::fe is not a gateway for this destination; accepted: an IPv4 address",
    ),
    (
        "via = \"10.2.0.254\"",
        "via = \"10.2.0.254\"\nport = \"wan\"",
        "f.toml:15: route[0].via: 10.2.0.254 is not an address in a port's subnet; accepted: 10.1.0.0/24, fd00:1::/64, 10.2.0.0/24",
    ),
    (
        "via = \"10.2.0.254\"",
        "port = \"lane\"",
        "f.toml:15: route[0].port: lane is not the name of a port; accepted: wan, lan",
    ),
    (
        "",
        "[[route]]\nto = \"10.3.0.0/16\"\nvia = \"10.2.0.253\"",
        "f.toml:40: route[1].to: 10.3.0.0/16 is already route[0].to; accepted: each once",
    ),
    (
        "name = \"pool\"",
        "name = \"\"",
        "f.toml:18: lip_pool[0].name: \"\" is not a pool's name; accepted: 1 to 32 letters, digits, '-' or '_', each name once",
    ),
    (
        "[\"10.2.0.200\"]",
        "[]",
        "f.toml:19: lip_pool[0].addresses: [] is not a list of local addresses; accepted: 1 to 1024 unicast addresses, such as [\"10.2.0.200\", \"10.2.0.201\"]",
    ),
    (
        "10.2.0.200",
        "10.2.0.1",
        "f.toml:19: lip_pool[0].addresses[0]: 10.2.0.1 is already port.lan.addresses[0]; accepted: each once",
    ),
    (
        "10.2.0.200",
        "10.1.0.100",
        "f.toml:22: service[0].listen: tcp 10.1.0.100:80 is a local address of FULLNAT; accepted: an address that is in no [[lip_pool]]\nf.toml:28: service[1].listen: udp 10.1.0.100:53 is a local address of FULLNAT; accepted: an address that is in no [[lip_pool]]",
    ),
    (
        "10.2.0.200",
        "fd00:2::200",
        "f.toml:30: service[1].lip_pool: pool is not a pool of the service's family; accepted: a pool with an IPv4 address",
    ),
    (
        "name = \"pool\"",
        "name = \"pool\"\nports = \"0-65535\"",
        "f.toml:19: lip_pool[0].ports: \"0-65535\" is not a range of ports; accepted: \"LOW-HIGH\" within 1 to 65535",
    ),
    (
        "name = \"pool\"",
        "name = \"pool\"\nports = \"9-8\"",
        "f.toml:19: lip_pool[0].ports: \"9-8\" is not a range of ports; accepted: \"LOW-HIGH\" within 1 to 65535",
    ),
    (
        "tcp 10.1.0.100:80",
        "dccp 10.1.0.100:80",
        "f.toml:22: service[0].listen: \"dccp 10.1.0.100:80\" is not a virtual service; accepted: \"PROTOCOL ADDRESS:PORT\" with tcp, udp or sctp, a unicast address and a port of 0 to 65535, such as \"tcp 10.0.0.100:80\" or \"udp [fd00::100]:53\", or \"mark N\" or \"mark N ipv6\" with a mark of 1 to 4294967295",
    ),
    (
        "listen = \"tcp 10.1.0.100:80\"",
        "listen = \"tcp 10.1.0.100:0\"",
        "f.toml:21: service[0].persistence_timeout: missing: the persistence of a service of all ports; accepted: 1 to 2678400",
        ),
    (
        "tcp 10.1.0.100:80",
        "tcp 127.0.0.1:80",
        "f.toml:22: service[0].listen: \"tcp 127.0.0.1:80\" is not a virtual service; accepted: \"PROTOCOL ADDRESS:PORT\" with tcp, udp or sctp, a unicast address and a port of 0 to 65535, such as \"tcp 10.0.0.100:80\" or \"udp [fd00::100]:53\", or \"mark N\" or \"mark N ipv6\" with a mark of 1 to 4294967295",
    ),
    (
        "tcp 10.1.0.100:80",
        "tcp [::ffff:10.1.0.100]:80",
        "f.toml:22: service[0].listen: \"tcp [::ffff:10.1.0.100]:80\" is not a virtual service; accepted: \"PROTOCOL ADDRESS:PORT\" with tcp, udp or sctp, a unicast address and a port of 0 to 65535, such as \"tcp 10.0.0.100:80\" or \"udp [fd00::100]:53\", or \"mark N\" or \"mark N ipv6\" with a mark of 1 to 4294967295",
    ),
    (
        "tcp 10.1.0.100:80",
        "udp 10.1.0.100:53",
        "f.toml:28: service[1].listen: udp 10.1.0.100:53 is already service[0].listen; accepted: each once",
    ),
    (
        "method = \"nat\"",
        "",
        "f.toml:21: service[0].method: missing: a forwarding method; accepted: \"nat\", \"dr\", \"tun\", \"fullnat\"",
    ),
    (
        "method = \"nat\"",
        "method = \"masq\"",
        "f.toml:23: service[0].method: \"masq\" is not a forwarding method; accepted: \"nat\", \"dr\", \"tun\", \"fullnat\"",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\nflags = [\"sh-port\"]",
        "f.toml:24: service[0].flags[0]: \"sh-port\" is not a flag of this scheduler; accepted: of \"sh-port\" and \"sh-fallback\" (with sh), \"mh-port\" and \"mh-fallback\" (with mh), each once",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\nscheduler = \"sh\"\nflags = [\"sh-port\", \"sh-port\"]",
        "f.toml:25: service[0].flags[1]: \"sh-port\" is not a flag of this scheduler; accepted: of \"sh-port\" and \"sh-fallback\" (with sh), \"mh-port\" and \"mh-fallback\" (with mh), each once",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\nlip_pool = \"pool\"",
        "f.toml:24: service[0].lip_pool: only method \"fullnat\" takes local addresses",
    ),
    (
        "lip_pool = \"pool\"",
        "",
        "f.toml:27: service[1].lip_pool: missing: the pool of method \"fullnat\"; accepted: pool",
    ),
    (
        "lip_pool = \"pool\"",
        "lip_pool = \"pol\"",
        "f.toml:30: service[1].lip_pool: pol is not the name of a pool; accepted: pool",
    ),
    (
        "[[service]]",
        "[service]",
        "f.toml:27: syntax: duplicate key",
    ),
    (
        "weight = 3",
        "weight = 70000",
        "f.toml:33: service[1].server[0].weight: 70000 is not a weight; accepted: 0 to 65535",
    ),
    (
        "weight = 3",
        "weight = 0.5",
        "f.toml:33: service[1].server[0].weight: 0.5 is not a weight; accepted: 0 to 65535",
    ),
    (
        "weight = 3",
        "wieght = 3",
        "f.toml:33: service[1].server[0].wieght: unknown key; did you mean `weight`?",
    ),
    (
        "10.2.0.11:8080",
        "fd00:1::11",
        "f.toml:25: service[0].server[0].address: fd00:1::11 is not of the service's family; accepted: an IPv4 address, or method \"tun\"",
    ),
    (
        "10.2.0.11:8080",
        "10.2.0.11:99999",
        "f.toml:25: service[0].server[0].address: \"10.2.0.11:99999\" is not a real server; accepted: \"ADDRESS:PORT\", \"[IPV6]:PORT\" or the address alone for the service's port, such as \"10.2.0.11:8080\"",
    ),
    (
        "10.2.0.11:8080",
        "10.4.0.11:8080",
        "f.toml:25: service[0].server[0].address: 10.4.0.11 is not an address with a way to it; accepted: an address in 10.1.0.0/24, fd00:1::/64, 10.2.0.0/24, or a [[route]] to it",
    ),
    (
        "10.2.0.11:8080",
        "10.1.0.100",
        "f.toml:25: service[0].server[0].address: 10.1.0.100 is the director's own address; accepted: the address of another host",
    ),
    (
        "10.2.0.11:8080",
        "10.2.0.200",
        "f.toml:25: service[0].server[0].address: 10.2.0.200 is the director's own address; accepted: the address of another host",
    ),
    (
        "10.3.0.13:53",
        "10.2.0.12:53",
        "f.toml:35: service[1].server[1].address: 10.2.0.12:53 is already service[1].server[0].address; accepted: each once",
    ),
    (
        "address = \"10.2.0.11:8080\"",
        "weight = 1",
        "f.toml:24: service[0].server[0].address: missing: a real server; accepted: \"ADDRESS:PORT\", \"[IPV6]:PORT\" or the address alone for the service's port, such as \"10.2.0.11:8080\"",
    ),
    (
        "weight = 3",
        "upper = -1",
        "f.toml:33: service[1].server[0].upper: -1 is not a number of connections; accepted: 0 to 4294967295",
    ),
    (
        "weight = 3",
        "lower = \"few\"",
        "f.toml:33: service[1].server[0].lower: \"few\" is not a number of connections; accepted: 0 to 4294967295",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\none_packet = true",
        "f.toml:24: service[0].one_packet: only udp services schedule each packet alone",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\nslow_start = 86401",
        "f.toml:24: service[0].slow_start: 86401 is not a number of seconds; accepted: 0 to 86400",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\nscheduler = \"mh\"\nslow_start = 9",
        "f.toml:25: service[0].slow_start: only schedulers rr, wrr, lc, wlc, sed, twos and maglev start slowly",
    ),
    (
        "",
        "[ipvs]\nlblc_expiration = -1",
        "f.toml:40: ipvs.lblc_expiration: -1 is not a number of seconds; accepted: 0 to 2678400",
    ),
    (
        "lip_pool = \"pool\"",
        "lip_pool = \"pool\"\none_packet = true",
        "f.toml:31: service[1].one_packet: method \"fullnat\" needs connections for its replies",
    ),
    (
        "lip_pool = \"pool\"",
        "lip_pool = \"pool\"\none_packet = 1",
        "f.toml:31: service[1].one_packet: 1 is not a switch; accepted: true or false",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\nhelper = \"tftp\"",
        "f.toml:24: service[0].helper: \"tftp\" is not a helper; accepted: \"ftp\"",
    ),
    (
        "lip_pool = \"pool\"",
        "lip_pool = \"pool\"\nhelper = \"ftp\"",
        "f.toml:31: service[1].helper: only tcp services have a helper",
    ),
    (
        "listen = \"udp 10.1.0.100:53\"\nmethod = \"fullnat\"",
        "listen = \"tcp 10.1.0.100:53\"\nmethod = \"fullnat\"\nhelper = \"ftp\"",
        "f.toml:30: service[1].helper: with method \"fullnat\" servers cannot connect to clients",
    ),
    (
        "",
        "[ipvs]\nconn_reuse_mode = 3",
        "f.toml:40: ipvs.conn_reuse_mode: 3 is not a mode of connection reuse; accepted: 0 to 2",
    ),
    (
        "",
        "[ipvs]\nsecure_tcp = 4",
        "f.toml:40: ipvs.secure_tcp: 4 is not a mode of the defence; accepted: 0 to 3",
    ),
    (
        "",
        "[ipvs]\namemthresh = -1",
        "f.toml:40: ipvs.amemthresh: -1 is not a number of connections; accepted: 0 to 1000000000",
    ),
    (
        "",
        "[ipvs]\nsloppy_tcp = 1",
        "f.toml:40: ipvs.sloppy_tcp: 1 is not a switch; accepted: true or false",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"tun\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel = \"vxlan\"",
        "f.toml:26: service[0].server[0].tunnel: \"vxlan\" is not a kind of tunnel; accepted: \"ipip\", \"gre\", \"gue\"",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"tun\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel = \"vxlan\"\ntunnel_port = 6080",
        "f.toml:26: service[0].server[0].tunnel: \"vxlan\" is not a kind of tunnel; accepted: \"ipip\", \"gre\", \"gue\"",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"tun\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel = \"gue\"",
        "f.toml:24: service[0].server[0].tunnel_port: missing: the UDP port of tunnel \"gue\"; accepted: 1 to 65535",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"tun\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel = \"gue\"\ntunnel_port = 0",
        "f.toml:27: service[0].server[0].tunnel_port: 0 is not a UDP port; accepted: 1 to 65535",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"tun\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel = \"gue\"\ntunnel_port = 6080\ntunnel_checksum = \"crc\"",
        "f.toml:28: service[0].server[0].tunnel_checksum: \"crc\" is not a choice of checksum; accepted: \"none\", \"full\", \"remote\"",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"tun\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel = \"gre\"\ntunnel_port = 6080",
        "f.toml:27: service[0].server[0].tunnel_port: only tunnel \"gue\" has a port",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"tun\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel = \"gre\"\ntunnel_checksum = \"remote\"",
        "f.toml:27: service[0].server[0].tunnel_checksum: only tunnel \"gue\" has a remote checksum",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"tun\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel = \"ipip\"\ntunnel_port = 6080",
        "f.toml:27: service[0].server[0].tunnel_port: only tunnel \"gue\" has a port",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"tun\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel_checksum = \"full\"",
        "f.toml:26: service[0].server[0].tunnel_checksum: only tunnels \"gre\" and \"gue\" have a checksum",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"dr\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel = \"gre\"",
        "f.toml:26: service[0].server[0].tunnel: only method \"tun\" has a tunnel",
    ),
    (
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:8080\"",
        "method = \"nat\"\n[[service.server]]\naddress = \"10.2.0.11:80\"\ntunnel_port = 6080",
        "f.toml:26: service[0].server[0].tunnel_port: only method \"tun\" has a tunnel",
    ),
    (
        "tcp = 900",
        "tcp = 0",
        "f.toml:38: timeouts.tcp: 0 is not a timeout in seconds; accepted: 1 to 2678400",
    ),
    (
        "tcp = 900",
        "tcp = 900\ntcp = 901",
        "f.toml:39: syntax: duplicate key",
    ),
    (
        "[timeouts]",
        "[timeouts",
        "f.toml:37: syntax: unclosed table, expected `]`",
    ),
    (
        "listen = \"tcp 10.1.0.100:80\"",
        "listen = \"mark 0\"",
        "f.toml:22: service[0].listen: \"mark 0\" is not a virtual service; accepted: \"PROTOCOL ADDRESS:PORT\" with tcp, udp or sctp, a unicast address and a port of 0 to 65535, such as \"tcp 10.0.0.100:80\" or \"udp [fd00::100]:53\", or \"mark N\" or \"mark N ipv6\" with a mark of 1 to 4294967295",
    ),
    (
        "tcp 10.1.0.100:80",
        "mark 7 ipv6",
        "f.toml:25: service[0].server[0].address: 10.2.0.11 is not of the service's family; accepted: an IPv6 address, or method \"tun\"",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\naddresses = [\"10.5.0.1\"]",
        "f.toml:24: service[0].addresses: only a mark's service has addresses beside `listen`",
    ),
    (
        "listen = \"tcp 10.1.0.100:80\"",
        "listen = \"mark 7\"\naddresses = [\"10.5.0.1\", \"fd00::1\", \"10.5.0.1\"]",
        "f.toml:23: service[0].addresses[1]: fd00::1 is not of the service's family; accepted: an IPv4 address\nf.toml:23: service[0].addresses[2]: 10.5.0.1 is already service[0].addresses[0]; accepted: each once",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\npersistence_engine = \"sip\"",
        "f.toml:24: service[0].persistence_engine: only a service with persistence_timeout is persistent",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\npersistence_timeout = 9\npersistence_engine = \"sip\"",
        "f.toml:25: service[0].persistence_engine: the engine \"sip\" looks into UDP packets",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\npersistence_timeout = 0",
        "f.toml:24: service[0].persistence_timeout: 0 is not a timeout in seconds; accepted: 1 to 2678400",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\npersistence_timeout = 9\npersistence_granularity = \"64\"",
        "f.toml:25: service[0].persistence_granularity: 64 is not a granularity of the service's family; accepted: an IPv4 netmask such as \"255.255.255.0\"",
    ),
    (
        "method = \"nat\"",
        "method = \"nat\"\npersistence_timeout = 9\npersistence_granularity = \"255.255\"",
        "f.toml:25: service[0].persistence_granularity: \"255.255\" is not a netmask or the length of a prefix; accepted: an IPv4 netmask such as \"255.255.255.0\", or \"1\" to \"128\" where clients speak IPv6",
    ),
    (
        "",
        "[[mark]]\nmark = 0",
        "f.toml:40: mark[0].mark: 0 is not a mark; accepted: 1 to 4294967295",
    ),
    (
        "",
        "[[mark]]\nmark = 7\nport = \"van\"",
        "f.toml:41: mark[0].port: van is not the name of a port; accepted: wan, lan",
    ),
    (
        "",
        "[[mark]]\nmark = 7\nsource = \"10.0.0.1/8\"",
        "f.toml:41: mark[0].source: \"10.0.0.1/8\" is not a network of clients; accepted: a network without host bits, such as \"10.5.0.0/24\" or \"fd00:5::/32\"",
    ),
    (
        "",
        "[[mark]]\nmark = 7\nsource = \"10.0.0.0/8\"\ndestination = \"fd00::/8\"",
        "f.toml:42: mark[0].destination: fd00::/8 is not of the source's family; accepted: an IPv4 network",
    ),
    (
        "",
        "[[mark]]\nmark = 7\ndestination_ports = \"90-80\"",
        "f.toml:41: mark[0].destination_ports: \"90-80\" is not a range of ports; accepted: \"PORT\" or \"LOW-HIGH\" within 1 to 65535, such as \"80\" or \"5000-5999\"",
    ),
];
