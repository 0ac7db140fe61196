"""The tasks of the study, each a readable script: get the data, build, train, measure, draw, write down."""
