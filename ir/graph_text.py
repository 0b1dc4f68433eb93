"""Text of an error-pathway graph."""
def format_graph(graph):
    out=[f"level {graph.level}"]
    for r in graph.regions:
        out.append(f"region {r.name} {r.shape} h={r.preactivation} z={r.activity} phi={r.phi} ports={r.ports} params={r.parameters} src={r.sources} out={r.outputs} block={r.block}")
    return "\n".join(out)
