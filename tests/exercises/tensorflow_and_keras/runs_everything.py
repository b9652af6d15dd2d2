"""Eager habits: runs the whole graph from the top, whether or not the node asked for needs it."""
# scores: {test_session_run: 1, test_session_run_hidden: 0}

# %% grade_id="session_run"
def session_run(graph, name, fed):
    values, ran = dict(fed), []
    for node, (operation, inputs) in graph.items():
        if operation == "MatMul":
            values[node] = values[inputs[0]] @ values[inputs[1]]
        elif operation == "AddV2":
            values[node] = values[inputs[0]] + values[inputs[1]]
        elif operation == "Relu":
            values[node] = np.maximum(values[inputs[0]], 0)
        elif operation == "Mean":
            values[node] = np.mean(values[inputs[0]])
        else:
            continue
        ran.append(node)
    return values[name], ran
