"""The chapter's interpreter: a node that two others use runs twice, and a missing feed is a KeyError."""
# scores: {test_session_run: 1, test_session_run_hidden: 0}

# %% grade_id="session_run"
def session_run(graph, name, fed):
    operations = {"MatMul": np.matmul, "AddV2": np.add, "Relu": lambda z: np.maximum(z, 0), "Mean": np.mean}
    ran = []

    def value_of(node):
        if node in fed:
            return fed[node]
        operation, inputs = graph[node]
        value = operations[operation](*[value_of(one) for one in inputs])
        ran.append(node)
        return value

    return value_of(name), ran
