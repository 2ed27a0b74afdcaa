"""A client in another language: what it does with a running uvsd, by code that protoc makes of the .proto files.

operate.py SOCKET WAY: WAY is "operate", or the role that the caller should have: "viewer", "nothing".
"""

import sys
import threading

import grpc
from uvs.v1 import configuration_pb2 as c
from uvs.v1 import configuration_pb2_grpc, connections_pb2, connections_pb2_grpc, director_pb2, director_pb2_grpc


def service(port):
    key = director_pb2.ServiceKey(
        protocol=director_pb2.PROTOCOL_TCP, address="192.0.2.100", port=port
    )
    servers = [c.ServerSettings(address=f"10.0.0.1{last}", weight=last) for last in (1, 2)]
    return c.ServiceSettings(
        key=key, scheduler="wlc", method=director_pb2.METHOD_NAT, servers=servers
    )


def edits(*all):
    return c.ChangeRequest(edits=c.Edits(edits=all))


def refused(code, call, request):
    try:
        call(request)
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error.details()
    raise AssertionError(f"{request} was granted")


def drain(connections, director):
    """Takes the first server of port 8082 out of service; nobody uses it."""
    key = service(8082).key
    request = connections_pb2.DrainRequest(service=key, address="10.0.0.11", port=8082)
    request.interval.FromMilliseconds(100)
    told = list(connections.Drain(request, timeout=10))
    assert told[-1].done and told[-1].active == 0 and told[-1].inactive == 0, told
    listed = director.ListServices(director_pb2.ListServicesRequest()).services
    servers = [of.servers for of in listed if of.key.port == 8082][0]
    weights = {server.address: server.weight for server in servers}
    assert weights == {"10.0.0.11": 0, "10.0.0.12": 2}, weights


def operate(configuration, connections, director):
    before = configuration.GetConfiguration(c.GetConfigurationRequest())
    news = configuration.WatchConfiguration(c.WatchConfigurationRequest())
    first = next(news)
    assert first.revision == before.revision, first
    seen = []

    def watch():
        for change in news:
            seen.append(change)
            if len(seen) == 4:
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()

    # What would change, and nothing does.
    wanted = c.State()
    wanted.CopyFrom(before.state)
    wanted.services.append(service(8081))
    plan = configuration.PlanChange(c.PlanChangeRequest(state=wanted))
    assert plan.plan.summary == "1 services added, 2 servers added", plan
    # A whole state, and edits.
    changed = configuration.Change(
        c.ChangeRequest(state=wanted, expected_revision=before.revision)
    )
    assert changed.revision == before.revision + 1, changed
    changed = configuration.Change(edits(c.Edit(create_service=service(8082))))
    assert changed.revision == before.revision + 2, changed
    # The same again, on what does not hold any more, and nonsense.
    outdated = c.ChangeRequest(state=wanted, expected_revision=before.revision)
    refused(grpc.StatusCode.ABORTED, configuration.Change, outdated)
    again = edits(c.Edit(create_service=service(8082)))
    refused(grpc.StatusCode.ALREADY_EXISTS, configuration.Change, again)
    wrong = service(8083)
    wrong.servers[0].weight = 70000
    told = refused(
        grpc.StatusCode.INVALID_ARGUMENT, configuration.Change, edits(c.Edit(create_service=wrong))
    )
    assert "edits.edits[0].create_service.servers[0].weight" in told, told
    listed = director.ListServices(director_pb2.ListServicesRequest()).services
    assert {8081, 8082} <= {service.key.port for service in listed}, listed
    drain(connections, director)
    # Back to what there was.
    configuration.Change(c.ChangeRequest(state=before.state))
    after = configuration.GetConfiguration(c.GetConfigurationRequest())
    assert after.state == before.state, after

    watcher.join(10)
    revisions = [change.revision - before.revision for change in seen]
    assert revisions == [1, 2, 3, 4], seen
    assert seen[1].plan.services[0].key.port == 8082, seen[1]
    assert seen[1].actor == "uid 0 (root)", seen[1]


def main():
    _, socket, way = sys.argv
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        configuration = configuration_pb2_grpc.ConfigurationStub(channel)
        director = director_pb2_grpc.DirectorStub(channel)
        if way == "operate":
            connections = connections_pb2_grpc.ConnectionsStub(channel)
            operate(configuration, connections, director)
            return
        denied = grpc.StatusCode.PERMISSION_DENIED
        changes = [
            (configuration.Change, edits(c.Edit(clear=c.Clear()))),
            (configuration.Confirm, c.ConfirmRequest(revision=1)),
            (configuration.RollBack, c.RollBackRequest(revision=1)),
            (director.ZeroCounters, director_pb2.ZeroCountersRequest()),
        ]
        for call, request in changes:
            told = refused(denied, call, request)
            assert "needs the role operator" in told, told
        looks = [
            (director.GetStatus, director_pb2.GetStatusRequest()),
            (director.ListServices, director_pb2.ListServicesRequest()),
            (configuration.GetConfiguration, c.GetConfigurationRequest()),
        ]
        for call, request in looks:
            if way == "viewer":
                call(request)
            else:
                told = refused(denied, call, request)
                assert "without any role" in told, told


main()
