//! Captures over gRPC: what a client reads back, and who may not have one.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::Director;
use control::config::Configuration;
use control::grpc::CaptureService;
use dataplane::port::memory::{MemoryPort, MemoryWire};
use dataplane::port::{Mac, PortId, PortInfo};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use proto::v1;
use proto::v1::capture_client::CaptureClient;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Streaming};
use tonic_types::StatusExt;

const TEXT: &str = r#"
[director]
connections = 100
servers = 3
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24"]
[[service]]
listen = "tcp 10.1.0.100:80"
scheduler = "rr"
method = "nat"
server = [{ address = "10.1.0.11", weight = 0 }]
"#;

struct Bed {
    client: CaptureClient<Channel>,
    wire: MemoryWire,
    _folder: TempDir,
}

impl Bed {
    async fn new() -> Bed {
        let info = PortInfo {
            name: "lan".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            driver: "memory",
        };
        let (port, wire) = MemoryPort::new(PortId(0), info, 64, 2048);
        let configuration = Configuration::parse("f", TEXT).unwrap().configuration;
        let director = Director::start_with(configuration, vec![vec![port]]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = Server::builder().add_service(CaptureService::server(Arc::new(director)));
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        let address = format!("unix:{}", path.display());
        Bed {
            client: CaptureClient::connect(address).await.unwrap(),
            wire,
            _folder: folder,
        }
    }

    async fn begin(
        &mut self,
        request: v1::CapturePacketsRequest,
    ) -> Result<Streaming<v1::CapturePacketsResponse>, tonic::Status> {
        let answer = self.client.capture_packets(request).await;
        answer.map(tonic::Response::into_inner)
    }

    /// A SYN of a client's, which nobody serves.
    fn send(&self, source_port: u16) {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let mut ip = [
            0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10, 1, 0, 9, 10, 1, 0, 100,
        ];
        let sum = dataplane::packet::checksum::ipv4_header(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(ip);
        frame.extend(source_port.to_be_bytes());
        frame.extend([0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]);
        assert!(self.wire.inject(&frame));
    }
}

/// Port, inbound, comment and length of each packet of a file.
fn packets(file: &[u8]) -> Vec<(String, bool, String, usize)> {
    let mut reader = PcapNgReader::new(file).unwrap();
    let mut packets = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block.unwrap().0.into_owned() else {
            continue;
        };
        let interface = &reader.interfaces()[packet.interface_id as usize];
        let name = interface.options.iter().find_map(|option| match option {
            InterfaceDescriptionOption::IfName(name) => Some(name.to_string()),
            _ => None,
        });
        let (mut inbound, mut comment) = (false, String::new());
        for option in &packet.options {
            match option {
                EnhancedPacketOption::Flags(flags) => inbound = *flags == 1,
                EnhancedPacketOption::Common(CommonOption::Comment(text)) => {
                    comment = text.to_string();
                }
                _ => {}
            }
        }
        assert!(packet.timestamp > Duration::from_secs(1_700_000_000));
        packets.push((name.unwrap(), inbound, comment, packet.data.len()));
    }
    packets
}

#[tokio::test]
async fn a_dropped_packets_comment_names_the_reason() {
    let mut bed = Bed::new().await;
    let request = v1::CapturePacketsRequest {
        filter: Some(v1::PacketFilter {
            protocol: v1::Protocol::Tcp.into(),
            host: "10.1.0.0/24".to_owned(),
            other_host: "10.1.0.9".to_owned(),
            transport_port: 80,
            ..v1::PacketFilter::default()
        }),
        packets: 2,
        ..v1::CapturePacketsRequest::default()
    };
    let mut stream = bed.begin(request).await.unwrap();
    let mut file = stream.message().await.unwrap().unwrap().pcapng;
    assert!(packets(&file).is_empty());
    // The workers heed it with their next round.
    tokio::time::sleep(Duration::from_millis(100)).await;
    for port in [4001, 4002, 4003] {
        bed.send(port);
    }
    let mut last = v1::CapturePacketsResponse::default();
    while let Some(message) = stream.message().await.unwrap() {
        file.extend(&message.pcapng);
        last = message;
    }
    assert_eq!((last.packets, last.missed), (2, 0));
    let dropped = ("lan".to_owned(), true, "dropped: no-server".to_owned(), 54);
    assert_eq!(packets(&file), [dropped.clone(), dropped]);
}

#[tokio::test]
async fn one_captures_at_a_time_and_who_goes_makes_room() {
    let mut bed = Bed::new().await;
    let first = bed
        .begin(v1::CapturePacketsRequest::default())
        .await
        .unwrap();
    let refused = bed
        .begin(v1::CapturePacketsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(first);
    let mut tries = 0;
    while bed
        .begin(v1::CapturePacketsRequest::default())
        .await
        .is_err()
    {
        tries += 1;
        assert!(tries < 100, "the first one's place stays taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn it_ends_when_its_time_is_over() {
    let mut bed = Bed::new().await;
    let request = v1::CapturePacketsRequest {
        duration: Some(Duration::from_millis(200).try_into().unwrap()),
        ..v1::CapturePacketsRequest::default()
    };
    let began = std::time::Instant::now();
    let mut stream = bed.begin(request).await.unwrap();
    while stream.message().await.unwrap().is_some() {}
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(200) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test]
async fn what_is_asked_for_wrongly_is_told_field_by_field() {
    let mut bed = Bed::new().await;
    let filter = v1::PacketFilter {
        protocol: 9,
        host: "10.1.0".to_owned(),
        transport_port: 70_000,
        port: "wan".to_owned(),
        reason: "no-sever".to_owned(),
        ..v1::PacketFilter::default()
    };
    let request = v1::CapturePacketsRequest {
        filter: Some(filter),
        point: 7,
        snap_len: 300_000,
        duration: Some(Duration::from_secs(4000).try_into().unwrap()),
        ..v1::CapturePacketsRequest::default()
    };
    let status = bed.begin(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    let violations = &details.bad_request().unwrap().field_violations;
    let mut fields: Vec<_> = violations.iter().map(|of| of.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "duration",
            "filter.host",
            "filter.port",
            "filter.protocol",
            "filter.reason",
            "filter.transport_port",
            "point",
            "snap_len"
        ]
    );
    let said = |field: &str| {
        let found = violations.iter().find(|of| of.field == field);
        found.unwrap().description.clone()
    };
    assert_eq!(
        said("filter.port"),
        "\"wan\" is not the name of a port; accepted: lan"
    );
    assert!(said("filter.reason").contains("no-server"));
}
