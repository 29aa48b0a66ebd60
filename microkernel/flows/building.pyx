"""Makes the stages, channels and cycles of a flow from its plan."""
from microkernel.flows.channel cimport Channel
from microkernel.flows.part cimport Cycle, Part
from microkernel.flows.stage cimport Outlet, Stage
from microkernel.flows.step cimport Step, make_step, named
from microkernel.task cimport INLINE, PROCESS, THREAD

from microkernel.flows.graph import BATCH, CAPACITY


cdef object build(Part part, object plan, int here, dict places):
    """Fill ``part`` with the stages that run ``here``, where ``places`` gives the stations of those
    that have a process of their own; the others are in the driver, which is station 0. Returns the
    channels of the sources and of the outputs by name."""
    cdef dict stages = {}
    cdef dict steps = {}
    cdef dict sources = {}
    cdef dict outputs = {}
    cdef Stage stage
    cdef Step step
    cdef int number = 0
    cdef Channel channel
    for group in plan.groups:
        for instance in range(group.instances):
            if places.get((group.index, instance), 0) == here:
                stage = make_stage(part, plan, group, instance)
                stages[group.index, instance] = stage
                part.stages.append(stage)
                for step in stage.steps:
                    steps[step.node, instance] = step
    part.unfinished = len(part.stages)
    make_cycles(part, plan, stages, places)
    for edge in plan.edges:
        if edge.fused:
            for instance in range(plan.nodes[edge.source].instances):
                if (edge.source, instance) in steps:
                    link(<Step>steps[edge.source, instance], edge.output,
                         <Step>steps[edge.target, instance], edge.port)
        else:
            number = lay(part, plan, edge, stages, steps, places, number)
    if here == 0:
        outputs = {name: lead_out(part, plan, place, name, steps)
                   for name, place in plan.outputs.items()}
    for node in plan.nodes:
        if node.kind in ("source", "generator") and (node.index, 0) in steps:
            step = <Step>steps[node.index, 0]
            channel = feed(part, node, stages[plan.group_of[node.index], 0], step)
            if node.kind == "source":
                sources[node.name] = channel
            else:
                # An operator that brings its items itself is called once.
                channel.push_one(None)
                channel.end()
    for stage in part.stages:
        for step in stage.steps:
            follow_directly(step)
    for stage in part.stages:
        for channel in stage.inputs:
            if channel.producers == 0:
                stage.wake()
    for cycle in part.cycles:
        part.settle(cycle)
    return sources, outputs


cdef Stage make_stage(Part part, object plan, object group, int instance):
    cdef Stage stage = Stage.__new__(Stage)
    cdef Step step
    stage.part = part
    stage.group = group.index
    stage.instance = instance
    stage.place = {"inline": INLINE, "thread": THREAD, "process": PROCESS}[group.placement]
    for index in group.nodes:
        stage.steps.append(make_step(part.kernel, part.ended, plan.nodes[index], instance))
    stage.open_steps = len(stage.steps)
    stage.name = " ".join([step.name for step in stage.steps])
    stage.function = named(f"{part.name}:{stage.name}")
    stage.function.call = stage
    return stage


cdef int link(Step before, int output, Step after, int port) except -1:
    (<list>before.targets[output]).append((after, port))
    after.open_inputs += 1
    return 0


cdef int lay(Part part, object plan, object edge, dict stages, dict steps, dict places,
             int number) except -1:
    """The channels of an edge between stages: from each instance to its own or to all. They are
    numbered from ``number`` on, in every process in the same way; returns the next number."""
    cdef Outlet outlet
    cdef Channel channel
    cdef Cycle cycle
    before = plan.groups[plan.group_of[edge.source]]
    after = plan.groups[plan.group_of[edge.target]]
    for i in range(before.instances):
        outlet = Outlet.__new__(Outlet)
        outlet.part = part
        outlet.consumer = plan.nodes[edge.target].name
        outlet.key = plan.nodes[edge.target].key
        for j in range(after.instances) if edge.scattered else (i,):
            number += 1
            from_here = (edge.source, i) in steps
            to_here = (edge.target, j) in steps
            if not from_here and not to_here:
                continue
            if from_here and to_here:
                channel = Channel(edge.capacity, edge.batch)
            elif from_here:
                channel = part.ports.outport(part, number, places.get((after.index, j), 0),
                                             edge.capacity, edge.batch)
            else:
                channel = part.ports.inlet(part, number, places.get((before.index, i), 0),
                                           edge.capacity, edge.batch)
            channel.producers = 1
            channel.feedback = edge.feedback
            if to_here:
                take_from(channel, <Stage>stages[after.index, j], <Step>steps[edge.target, j],
                          edge.port)
            if from_here:
                outlet.channels.append(channel)
            cycle = None
            if before.cycle is not None and before.cycle == after.cycle:
                cycle = cycle_of(part, before.cycle)
            if cycle is not None:
                cycle.inside.append(channel)
                if edge.feedback:
                    cycle.feedbacks.append(channel)
        if outlet.channels:
            (<list>(<Step>steps[edge.source, i]).targets[edge.output]).append((outlet, 0))
    return number


cdef int take_from(Channel channel, Stage stage, Step step, int port) except -1:
    channel.consumer = stage
    channel.step = step
    channel.port = port
    step.open_inputs += 1
    if channel.feedback:
        stage.inputs.insert(stage.feedbacks, channel)
        stage.feedbacks += 1
    else:
        stage.inputs.append(channel)
    return 0


cdef Channel lead_out(Part part, object plan, tuple place, str name, dict steps):
    """The channel that a program reads the results of an output from."""
    cdef Outlet outlet
    node, output, capacity = place
    instances = plan.nodes[node].instances
    cdef Channel channel = Channel(capacity, 1)
    channel.producers = instances
    for i in range(instances):
        outlet = Outlet.__new__(Outlet)
        outlet.part = part
        outlet.consumer = name
        outlet.channels.append(channel)
        (<list>(<Step>steps[node, i]).targets[output]).append((outlet, 0))
    return channel


cdef Channel feed(Part part, object node, Stage stage, Step step):
    """The channel through which items enter at a source."""
    cdef Channel channel = Channel(node.capacity or CAPACITY, node.batch or BATCH)
    channel.producers = 1
    take_from(channel, stage, step, 0)
    return channel


cdef int follow_directly(Step step) except -1:
    """Note the step that is called next where there is only one and nothing in between."""
    if len(step.targets) == 1 and len(<list>step.targets[0]) == 1:
        target, port = (<list>step.targets[0])[0]
        if isinstance(target, Step):
            step.follow = <Step>target
            step.follow_port = port
    return 0


cdef int make_cycles(Part part, object plan, dict stages, dict places) except -1:
    """The cycles that this process looks after: those that are whole within it, and in the driver
    also those that lead through others."""
    cdef Cycle cycle
    cdef Stage stage
    for number in sorted({group.cycle for group in plan.groups if group.cycle is not None}):
        members = [(group.index, instance) for group in plan.groups if group.cycle == number
                   for instance in range(group.instances)]
        mine = [stages[place] for place in members if place in stages]
        if mine and (len(mine) == len(members) or not any(
                place in places for place in stages)):
            cycle = Cycle.__new__(Cycle)
            cycle.number = number
            cycle.stages = mine
            cycle.feedbacks = []
            cycle.inside = []
            part.cycles.append(cycle)
            for stage in mine:
                stage.cycle = cycle
    return 0


cdef Cycle cycle_of(Part part, int number):
    cdef Cycle cycle
    for cycle in part.cycles:
        if cycle.number == number:
            return cycle
    return None
