//! The gRPC service that changes the configuration, as a client meets it.
#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use control::Director;
use control::config::{AccessSettings, Configuration};
use control::grpc::ConfigurationService;
use control::guard::{Access, Guard, Incoming};
use control::manage::Manager;
use proto::v1;
use proto::v1::change_request::Change;
use proto::v1::configuration_client::ConfigurationClient;
use proto::v1::edit::Edit;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tonic_types::StatusExt;

const TEXT: &str = r#"
[director]
connections = 100
servers = 10
[port.lan]
driver = "memory"
addresses = ["10.1.0.1/24", "fd00::1/64"]
[[lip_pool]]
name = "lips"
addresses = ["10.1.0.200"]
ports = "2000-3000"
[[route]]
to = "10.9.0.0/16"
via = "10.1.0.254"
[[mark]]
mark = 7
destination = "10.1.0.99/32"
protocol = "udp"
destination_ports = "53"
[timeouts]
udp = 30
[ipvs]
sloppy_tcp = true
[[service]]
listen = "udp 10.1.0.100:53"
scheduler = "wrr"
method = "nat"
persistence_timeout = 50
persistence_granularity = "255.255.255.0"
server = [{ address = "10.1.0.11", weight = 3 }, { address = "10.1.0.12", method = "tun", tunnel = "gue", tunnel_port = 6080 }]
[[service]]
listen = "mark 7"
scheduler = "mh"
flags = ["mh-port"]
method = "fullnat"
lip_pool = "lips"
addresses = ["10.1.0.99"]
server = [{ address = "10.1.0.13:53", upper = 9, lower = 3 }]
"#;

struct Bed {
    manager: Arc<Manager>,
    client: ConfigurationClient<Channel>,
    _folder: TempDir,
}

impl Bed {
    async fn new() -> Bed {
        let configuration = Configuration::parse("f", TEXT).unwrap().configuration;
        let director = Arc::new(Director::start(configuration).unwrap());
        let manager = Arc::new(Manager::new(director, 1));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let (access, _) = Access::look_up(&AccessSettings::default());
        let guard = Arc::new(Guard::new(access, Arc::default()));
        let server = Server::builder()
            .layer(guard.layer())
            .add_service(ConfigurationService::server(Arc::clone(&manager)));
        let incoming = Incoming::default().unix(listener).unwrap();
        tokio::spawn(server.serve_with_incoming(incoming));
        let address = format!("unix:{}", path.display());
        Bed {
            manager,
            client: ConfigurationClient::connect(address).await.unwrap(),
            _folder: folder,
        }
    }

    async fn state(&mut self) -> v1::State {
        let request = v1::GetConfigurationRequest::default();
        let answer = self.client.get_configuration(request).await.unwrap();
        answer.into_inner().state.unwrap()
    }

    async fn change(&mut self, request: v1::ChangeRequest) -> Result<v1::ChangeResponse, Status> {
        let answer = self.client.change(request).await;
        answer.map(tonic::Response::into_inner)
    }

    async fn edit(&mut self, edits: Vec<Edit>) -> Result<v1::ChangeResponse, Status> {
        self.change(wish(edits)).await
    }

    /// Code, message, and the fields that are wrong.
    async fn refused(
        &mut self,
        request: v1::ChangeRequest,
    ) -> (Code, String, Vec<(String, String)>) {
        let before = self.manager.current();
        let status = self.change(request).await.unwrap_err();
        let after = self.manager.current();
        assert_eq!((before.0, before.1), (after.0, after.1), "nothing changes");
        let details = status.get_error_details();
        let violations = details.bad_request().map_or(Vec::new(), |bad| {
            let violations = bad.field_violations.iter();
            violations
                .map(|violation| (violation.field.clone(), violation.description.clone()))
                .collect()
        });
        (status.code(), status.message().to_owned(), violations)
    }
}

fn wish(edits: Vec<Edit>) -> v1::ChangeRequest {
    let edits = edits.into_iter().map(|edit| v1::Edit { edit: Some(edit) });
    v1::ChangeRequest {
        change: Some(Change::Edits(v1::Edits {
            edits: edits.collect(),
        })),
        ..v1::ChangeRequest::default()
    }
}

fn whole(state: v1::State) -> v1::ChangeRequest {
    v1::ChangeRequest {
        change: Some(Change::State(state)),
        ..v1::ChangeRequest::default()
    }
}

fn key(address: &str, port: u32) -> v1::ServiceKey {
    v1::ServiceKey {
        protocol: v1::Protocol::Tcp.into(),
        address: address.to_owned(),
        port,
        ..v1::ServiceKey::default()
    }
}

fn service(port: u32) -> v1::ServiceSettings {
    v1::ServiceSettings {
        key: Some(key("10.1.0.100", port)),
        method: v1::Method::Nat.into(),
        ..v1::ServiceSettings::default()
    }
}

fn server(address: &str) -> v1::ServerSettings {
    v1::ServerSettings {
        address: address.to_owned(),
        ..v1::ServerSettings::default()
    }
}

#[tokio::test]
async fn what_is_got_can_be_given_back() {
    let mut bed = Bed::new().await;
    let state = bed.state().await;
    let (before, ..) = bed.manager.current();
    let answer = bed.change(whole(state.clone())).await.unwrap();
    assert_eq!(
        (answer.revision, answer.plan.unwrap().summary.as_str()),
        (2, "nothing changes")
    );
    assert_eq!(bed.manager.current().0, before);
    assert_eq!(bed.state().await, state);
}

#[tokio::test]
async fn an_empty_state_leaves_nothing_but_what_is_fixed() {
    let mut bed = Bed::new().await;
    let answer = bed.change(whole(v1::State::default())).await.unwrap();
    let plan = answer.plan.unwrap();
    assert_eq!(
        plan.summary,
        "2 services removed, 3 servers removed, addresses or routes changed, local addresses changed, marks changed, timeouts changed, ipvs settings changed"
    );
    let (now, ..) = bed.manager.current();
    assert_eq!(
        now.to_toml(),
        "[director]\nconnections = 100\nservers = 10\n\n[port.lan]\ndriver = \"memory\"\n"
    );
}

#[tokio::test]
async fn edits_hold_together() {
    let mut bed = Bed::new().await;
    let with_server = v1::ServiceSettings {
        servers: vec![server("10.1.0.21")],
        ..service(80)
    };
    let add = Edit::CreateServer(v1::ServiceServer {
        service: Some(key("10.1.0.100", 80)),
        server: Some(v1::ServerSettings {
            port: 8080,
            weight: Some(0),
            ..server("10.1.0.22")
        }),
    });
    let answer = bed
        .edit(vec![Edit::CreateService(with_server), add.clone()])
        .await
        .unwrap();
    let plan = answer.plan.unwrap();
    assert_eq!(
        (answer.revision, plan.summary.as_str()),
        (2, "1 services added, 2 servers added")
    );
    assert_eq!(plan.services[0].servers.len(), 2);
    let services = bed.manager.director().services();
    let added = &services[0];
    assert_eq!(
        (added.listen.to_string().as_str(), added.scheduler),
        ("tcp 10.1.0.100:80", "wlc")
    );
    let servers: Vec<_> = added
        .servers
        .iter()
        .map(|own| (own.address.to_string(), own.weight))
        .collect();
    assert_eq!(
        servers,
        [
            ("10.1.0.21:80".to_owned(), 1),
            ("10.1.0.22:8080".to_owned(), 0)
        ]
    );
    // The second of these cannot be made, so neither is.
    let (code, message, _) = bed
        .refused(wish(vec![Edit::DeleteService(key("10.1.0.100", 80)), add]))
        .await;
    assert_eq!(code, Code::NotFound);
    assert!(
        message.starts_with("edit 1: there is no service tcp 10.1.0.100:80"),
        "{message}"
    );
    let timeouts = v1::Timeouts {
        tcp_s: Some(77),
        ..v1::Timeouts::default()
    };
    bed.edit(vec![Edit::SetTimeouts(timeouts), Edit::Clear(v1::Clear {})])
        .await
        .unwrap();
    let state = bed.state().await;
    let timeouts = state.timeouts.unwrap();
    assert_eq!(
        (timeouts.tcp_s, timeouts.udp_s),
        (Some(77), Some(30)),
        "what is not said stays"
    );
    assert!(state.services.is_empty());
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let mut bed = Bed::new().await;
    let wrong = v1::ServiceSettings {
        scheduler: "wlcc".to_owned(),
        flags: vec!["sh-port".to_owned()],
        method: 9,
        servers: vec![v1::ServerSettings {
            weight: Some(70_000),
            port: 70_000,
            ..server("10.1.0.300")
        }],
        persistence: Some(v1::Persistence {
            granularity: "x".to_owned(),
            ..v1::Persistence::default()
        }),
        ..service(80)
    };
    let (code, message, fields) = bed.refused(wish(vec![Edit::CreateService(wrong)])).await;
    assert_eq!(code, Code::InvalidArgument);
    let names: Vec<_> = fields
        .iter()
        .map(|(field, _)| {
            field
                .strip_prefix("edits.edits[0].create_service.")
                .unwrap()
        })
        .collect();
    assert_eq!(
        names,
        [
            "scheduler",
            "flags[0]",
            "method",
            "persistence.timeout_s",
            "persistence.granularity",
            "servers[0].address",
            "servers[0].port",
            "servers[0].weight",
        ]
    );
    assert_eq!(fields[7].1, "70000 is not a weight; accepted: 0 to 65535");
    assert!(message.ends_with("(and 7 more)"), "{message}");
}

#[tokio::test]
async fn what_does_not_fit_together_is_told_where_it_was_said() {
    let mut bed = Bed::new().await;
    let far = v1::ServiceSettings {
        servers: vec![server("172.16.0.1")],
        ..service(80)
    };
    let clear = Edit::Clear(v1::Clear {});
    let (code, _, fields) = bed
        .refused(wish(vec![clear, Edit::CreateService(far.clone())]))
        .await;
    assert_eq!(
        (code, fields[0].0.as_str()),
        (Code::InvalidArgument, "edits.edits[1]")
    );
    assert!(fields[0].1.contains("172.16.0.1"), "{fields:?}");
    let mut state = bed.state().await;
    state.services.push(far);
    let (_, _, fields) = bed.refused(whole(state)).await;
    assert_eq!(fields[0].0, "state.services[2].servers[0].address");
}

#[tokio::test]
async fn nothing_to_do_and_what_is_there_or_not_have_their_codes() {
    let mut bed = Bed::new().await;
    let listen = v1::ServiceKey {
        protocol: v1::Protocol::Udp.into(),
        ..key("10.1.0.100", 53)
    };
    let twice = v1::ServiceSettings {
        key: Some(listen),
        ..service(0)
    };
    let empty = v1::ChangeRequest::default();
    for (request, code, field) in [
        (empty, Code::InvalidArgument, Some("change")),
        (
            wish(vec![Edit::CreateService(twice)]),
            Code::AlreadyExists,
            None,
        ),
        (
            wish(vec![Edit::DeleteService(key("10.1.0.100", 1))]),
            Code::NotFound,
            None,
        ),
        (
            wish(vec![Edit::DeleteRoute("10.8.0.0/16".to_owned())]),
            Code::NotFound,
            None,
        ),
        (
            wish(vec![Edit::DeleteRoute("10.8.0.0".to_owned())]),
            Code::InvalidArgument,
            Some("edits.edits[0].delete_route"),
        ),
    ] {
        let (is, _, fields) = bed.refused(request).await;
        let first = fields.first().map(|(field, _)| field.as_str());
        assert_eq!((is, first), (code, field));
    }
    let many = (1..=11).map(|host| server(&format!("10.1.0.1{host}")));
    let full = v1::ServiceSettings {
        servers: many.collect(),
        ..service(81)
    };
    let (code, message, _) = bed.refused(wish(vec![Edit::CreateService(full)])).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        message.contains("14 servers (director.servers) are too many"),
        "{message}"
    );
}

#[tokio::test]
async fn who_expects_another_revision_is_told() {
    let mut bed = Bed::new().await;
    let expecting = |revision| v1::ChangeRequest {
        expected_revision: revision,
        ..wish(vec![Edit::Clear(v1::Clear {})])
    };
    let (code, message, _) = bed.refused(expecting(2)).await;
    assert_eq!(code, Code::Aborted);
    assert!(message.contains("at revision 1, not 2"), "{message}");
    assert_eq!(bed.change(expecting(1)).await.unwrap().revision, 2);
}

#[tokio::test]
async fn a_plan_changes_nothing() {
    let mut bed = Bed::new().await;
    let Some(Change::Edits(edits)) = wish(vec![Edit::Clear(v1::Clear {})]).change else {
        unreachable!("edits were asked for");
    };
    let request = v1::PlanChangeRequest {
        change: Some(v1::plan_change_request::Change::Edits(edits)),
        expected_revision: 1,
    };
    let answer = bed.client.plan_change(request).await.unwrap().into_inner();
    assert_eq!(
        answer.plan.unwrap().summary,
        "2 services removed, 3 servers removed"
    );
    assert_eq!((answer.revision, bed.state().await.services.len()), (1, 2));
}

#[tokio::test]
async fn a_plan_tells_how_many_flows_another_server_moves() {
    let mut bed = Bed::new().await;
    let add = v1::ServiceServer {
        service: Some(v1::ServiceKey {
            mark: 7,
            ..v1::ServiceKey::default()
        }),
        server: Some(v1::ServerSettings {
            port: 53,
            ..server("10.1.0.14")
        }),
    };
    let Some(Change::Edits(edits)) = wish(vec![Edit::CreateServer(add)]).change else {
        unreachable!("edits were asked for");
    };
    let request = v1::PlanChangeRequest {
        change: Some(v1::plan_change_request::Change::Edits(edits)),
        expected_revision: 0,
    };
    let answer = bed.client.plan_change(request).await.unwrap().into_inner();
    let service = &answer.plan.unwrap().services[0];
    let moved = service.slots_moved.unwrap();
    assert!(
        (0.4..0.6).contains(&moved),
        "of one server's flows half go to the other: {moved}"
    );
}

#[tokio::test]
async fn what_is_not_confirmed_is_taken_back() {
    let mut bed = Bed::new().await;
    let (before, ..) = bed.manager.current();
    let within = |milliseconds| v1::ChangeRequest {
        confirm_within: Duration::from_millis(milliseconds).try_into().ok(),
        ..wish(vec![Edit::Clear(v1::Clear {})])
    };
    let answer = bed.change(within(60_000)).await.unwrap();
    assert_eq!(answer.pending.unwrap().revision, 2);
    let (code, message, _) = bed.refused(wish(vec![Edit::Clear(v1::Clear {})])).await;
    assert_eq!(code, Code::FailedPrecondition);
    assert!(
        message.contains("revision 2 waits for its confirmation"),
        "{message}"
    );
    assert!(bed.manager.tidy().is_none(), "there is time");
    bed.client
        .roll_back(v1::RollBackRequest { revision: 2 })
        .await
        .unwrap();
    assert_eq!(
        (bed.manager.current().0, bed.manager.current().1),
        (before.clone(), 3)
    );
    bed.change(within(1)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(bed.manager.tidy().unwrap().unwrap().revision, 5);
    assert_eq!(bed.manager.current().0, before);
    bed.change(within(1)).await.unwrap();
    bed.client
        .confirm(v1::ConfirmRequest { revision: 6 })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(bed.manager.tidy().is_none(), "it was confirmed");
    assert!(bed.manager.current().0.services.is_empty());
    let again = bed
        .client
        .confirm(v1::ConfirmRequest { revision: 6 })
        .await
        .unwrap_err();
    assert_eq!(again.code(), Code::FailedPrecondition);
    let (code, _, fields) = bed.refused(within(86_400_001)).await;
    assert_eq!(
        (code, fields[0].0.as_str()),
        (Code::InvalidArgument, "confirm_within")
    );
}

#[tokio::test]
async fn watchers_see_every_change_in_order() {
    let mut bed = Bed::new().await;
    let mut news = bed
        .client
        .watch_configuration(v1::WatchConfigurationRequest {})
        .await
        .unwrap()
        .into_inner();
    let first = news.message().await.unwrap().unwrap();
    assert_eq!((first.revision, first.plan), (1, None));
    for port in 1..=20 {
        bed.edit(vec![Edit::CreateService(service(port))])
            .await
            .unwrap();
    }
    for revision in 2..=21 {
        let change = news.message().await.unwrap().unwrap();
        assert_eq!(change.revision, revision);
        assert_eq!(change.plan.unwrap().summary, "1 services added");
        let uid = format!("uid {}", rustix::process::getuid().as_raw());
        assert!(change.actor.starts_with(&uid), "{}", change.actor);
    }
}

/// So many edits that are all wrong.
fn wrong(count: usize, weight: u32) -> Vec<Edit> {
    let server = v1::ServerSettings {
        weight: Some(weight),
        ..server("10.1.0.12")
    };
    let service = v1::ServiceKey {
        protocol: v1::Protocol::Udp.into(),
        ..key("10.1.0.100", 53)
    };
    let edit = Edit::UpdateServer(v1::ServiceServer {
        service: Some(service),
        server: Some(server),
    });
    vec![edit; count]
}

#[tokio::test]
async fn more_edits_than_a_call_may_have_are_refused_and_none_is_made() {
    let mut bed = Bed::new().await;
    let fitting = bed.edit(wrong(10_000, 7)).await.unwrap();
    assert_eq!(fitting.revision, 2);
    let (code, message, _) = bed.refused(wish(wrong(10_001, 8))).await;
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(
        message,
        "edits: 10001 edits are too many; accepted: at most 10000"
    );
}

#[tokio::test]
async fn a_message_may_be_as_long_as_a_whole_state_and_no_longer() {
    let mut bed = Bed::new().await;
    // Of the name, and of what is around it.
    let named = |len: usize| wish(vec![Edit::DeleteLipPool("x".repeat(len))]);
    let (code, message, _) = bed.refused(named((64 << 20) - 100)).await;
    assert_eq!(code, Code::NotFound);
    assert!(
        message.starts_with("edit 0: there is no LIP pool xxx") && message.len() < 2000,
        "{message}"
    );
    let (code, message, _) = bed.refused(named(64 << 20)).await;
    assert_eq!(code, Code::OutOfRange);
    assert!(
        message.contains("the limit is: 67108864 bytes"),
        "{message}"
    );
}

#[tokio::test]
async fn however_much_is_wrong_the_answer_fits_into_what_clients_read() {
    let mut bed = Bed::new().await;
    let (code, message, fields) = bed.refused(wish(wrong(10_000, 70_000))).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.ends_with("(and 9999 more)"), "{message}");
    assert!((10..100).contains(&fields.len()), "{}", fields.len());
    assert_eq!(fields[9].0, "edits.edits[9].update_server.server.weight");
    // A value of one letter that takes three where statuses are written, over and over.
    let long = v1::ServiceSettings {
        scheduler: "ä".repeat(1 << 20),
        ..service(81)
    };
    let (code, message, fields) = bed.refused(wish(vec![Edit::CreateService(long)])).await;
    assert_eq!(code, Code::InvalidArgument);
    assert!(
        message.len() < 2000 && fields.len() == 1,
        "{}",
        message.len()
    );
    assert!(message.contains("ää… is not "), "{message}");
    assert!(message.contains("; accepted: "), "{message}");
}

#[tokio::test]
async fn a_watcher_who_is_too_far_behind_is_told_how_many_changes_he_missed() {
    use control::manage::{Actor, CHANGES_KEPT, Terms, Wish};
    let mut bed = Bed::new().await;
    let request = v1::WatchConfigurationRequest {};
    let mut news = bed.client.watch_configuration(request).await.unwrap();
    let news = news.get_mut();
    assert_eq!(news.message().await.unwrap().unwrap().revision, 1);
    let (wanted, ..) = bed.manager.current();
    // Nobody else comes to his turn meanwhile: there is one thread.
    let change = |count: usize| {
        for _ in 0..count {
            let wish = Wish::Whole(Box::new(wanted.clone()));
            let actor = Actor::of_uvsd("test");
            bed.manager.change(&wish, Terms::default(), &actor).unwrap();
        }
    };
    change(CHANGES_KEPT);
    for revision in 2..2 + CHANGES_KEPT as u64 {
        assert_eq!(news.message().await.unwrap().unwrap().revision, revision);
    }
    change(CHANGES_KEPT + 3);
    let missed = news.message().await.unwrap_err();
    assert_eq!(missed.code(), Code::DataLoss);
    assert_eq!(
        missed.message(),
        "3 changes were missed: look at what holds, and watch again"
    );
}
