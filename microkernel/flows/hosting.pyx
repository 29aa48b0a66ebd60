"""Stages in processes of their own: how they get there, and what the driver hears of them.

Each instance of a process stage is given a station of the kernel, started for it, and is sent the
plan of the flow without the code of other stages. It runs the very same stages as the driver does;
only some of its channels are ports. It says when it is there, how its operators fare, and how it
ends; when the whole flow has ended the process is let go.
"""
from dataclasses import replace

from libc.stdint cimport int64_t, uint32_t

from microkernel.engine cimport Engine
from microkernel.flows.building cimport build
from microkernel.flows.flow cimport Flow
from microkernel.flows.ports cimport COUNTERS, FAILED, OPEN, OVER, READY, START, Ports
from microkernel.flows.part cimport BROKEN
from microkernel.flows.running cimport RunningPart
from microkernel.flows.step cimport named
from microkernel.ids cimport id_from_bytes, id_to_bytes
from microkernel.pending cimport monotonic_ns
from microkernel.processes.fabric cimport Fabric
from microkernel.processes.station cimport SRDS_FLOW, Station
from microkernel.task cimport RUNNING, Ref

from microkernel.errors import GraphError, WorkerCrashed

cdef enum:
    NEWS_NS = 100000000         # between reports of what the operators have done


# In the driver

def places_for(Flow flow not None, plan):
    """Start a process for each instance of each process stage; returns which station each has, or
    None where no processes can be started, because this is one."""
    cdef Engine engine = flow.kernel
    cdef Fabric fabric
    cdef dict places = {}
    cdef Ports ports
    wanted = [(group.index, instance) for group in plan.groups if group.placement == "process"
              for instance in range(group.instances)]
    check_cycles(plan, wanted)
    if engine.remote is None:
        engine.remote = engine.open_remote()
    if not isinstance(engine.remote, Fabric):
        return None
    fabric = <Fabric>engine.remote
    ports = ports_of(fabric)
    ports.last += 1
    flow.number = ports.last
    flow.ports = ports
    flow.places = places
    try:
        for place in wanted:
            places[place] = fabric.start_dedicated()
        for place, station in places.items():
            flow.opening.append(ports.send_value(
                station, OPEN, flow.number, 0, 0,
                (flow.name, id_to_bytes(flow.ended.id), station, places, trimmed(plan, place[0]))))
    except BaseException:
        for station in places.values():
            fabric.kill_station(station)
            fabric.stop_station(station)
        raise
    ports.parts[flow.number] = flow
    engine.remote_left += 1
    fabric.outstanding += 1
    fabric.attend(1)
    return places


def let_go(Flow flow not None):
    """The flow is over: its processes have nothing more to do."""
    cdef Fabric fabric = <Fabric>flow.kernel.remote
    cdef Ports ports = <Ports>flow.ports
    if ports.parts.pop(flow.number, None) is None:
        return                      # its processes could not even be started
    flow.kernel.remote_left -= 1
    fabric.outstanding -= 1
    fabric.attend(-1)
    for station in flow.places.values():
        if flow.state == BROKEN:
            fabric.kill_station(station)
        fabric.stop_station(station)


def dismiss(Ports ports not None, int station):
    """A process has come up for a flow that is over."""
    if isinstance(ports.station, Fabric):
        (<Fabric>ports.station).kill_station(station)
        (<Fabric>ports.station).stop_station(station)


def heard(Flow flow not None, int sender, int what, payload):
    """What a process says about its part."""
    cdef Ports ports = <Ports>flow.ports
    if what == READY:
        flow.ready += 1
        if flow.ready == <size_t>len(flow.places):
            flow.opening.clear()
            for station in flow.places.values():
                ports.send(station, START, flow.number, 0, 0, NULL, 0, 0)
    elif what == FAILED:
        flow.fail(payload)
    else:
        flow.reports[sender] = payload
        if what == OVER:
            flow.unfinished -= 1
            if flow.unfinished == 0:
                flow.drained()


def crashed(Flow flow not None, int station):
    """The process of one of the flow's stages is gone."""
    if station not in flow.places.values():
        return
    place = next(place for place, there in flow.places.items() if there == station)
    names = " ".join(node.name for node in flow.graph_plan.nodes
                     if flow.graph_plan.group_of[node.index] == place[0])
    flow.fail(WorkerCrashed(
        f"the process that ran {names} of flow {flow.name} died", what=names,
        expected="a process that lives",
        remedy="look for what kills it: memory, a fault in C code, a signal"))


cdef Ports ports_of(Station station):
    """What speaks for the flows of this process, made for the first of them."""
    ports = station.handlers[SRDS_FLOW]
    if ports is None:
        ports = Ports(station)
        station.handle(SRDS_FLOW, ports)
    return <Ports>ports


def trimmed(plan, int mine):
    """The plan with no other code than that of the group ``mine``."""
    needed = {edge.target for edge in plan.edges if plan.group_of[edge.source] == mine}
    nodes = [replace(node, call=node.call if plan.group_of[node.index] == mine else None,
                     key=node.key if node.index in needed else None) for node in plan.nodes]
    return replace(plan, nodes=nodes)


cdef int check_cycles(plan, list wanted) except -1:
    """A cycle may lead through processes only from the driver and back to it, which sees then when
    nothing is left in it."""
    for edge in plan.edges:
        source = plan.groups[plan.group_of[edge.source]]
        target = plan.groups[plan.group_of[edge.target]]
        if (source.cycle is not None and source.cycle == target.cycle
                and source.placement == target.placement == "process"
                and (source is not target or source.instances > 1)):
            name = plan.nodes[edge.target].name
            raise GraphError(f"a cycle leads from one process to another at {name}", what=name,
                             expected="a cycle within one process, or by way of the kernel's own",
                             remedy=f"place {name} or what is in front of it in a thread")
    return 0


# In a process

cdef class Hosted(RunningPart):
    """The stage of a flow that this process runs."""

    cdef int64_t reported

    cdef int tell(self, object error) except -1:
        cdef Ports ports = <Ports>self.ports
        if error is None:
            ports.send_value(0, OVER, self.number, 0, 0, self.counts())
        else:
            ports.send_error(0, self.number, error)
        return 0

    cdef int went_on(self) except -1:
        cdef int64_t now = monotonic_ns()
        if now - self.reported > NEWS_NS:
            self.reported = now
            (<Ports>self.ports).send_value(0, COUNTERS, self.number, 0, 0, self.counts())
        return 0


def host(Ports ports not None, uint32_t number, bytes data not None, flags):
    """Open a part of a flow here; an error ends the flow, not the process."""
    cdef Hosted part = Hosted.__new__(Hosted)
    part.kernel = ports.station.engine
    part.ports = ports
    part.number = number
    part.ended = Ref.__new__(Ref)
    part.ended.kernel = part.kernel
    part.ended.state = RUNNING
    try:
        part.name, identity, here, places, plan = ports.read_value(data, flags)
        part.ended.id = id_from_bytes(identity)
        part.ended.function = named(f"flow:{part.name}")
        ports.parts[number] = part
        build(part, plan, here, places)
        ports.send(0, READY, number, 0, 0, NULL, 0, 0)
    except Exception as error:
        ports.parts.pop(number, None)
        ports.send_error(0, number, error)
