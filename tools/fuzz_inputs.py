"""Valid input, which `fuzz_readers.py` damages."""

PREPROCESS = """
project_root: .
data_path: data/t.csv
read_format: csv
write_format: arrow
seq_length: 8
split_ratios: [0.8, 0.1, 0.1]
stride_by_split: [4, 4, 1]
selected_columns: [item, price]
column_roles: {item: categorical}
max_categories: {item: 9}
fit_on: all
seed: 1010
"""

TRAIN = """
project_root: .
metadata_config_path: configs/metadata_configs/t.json
model_name: m
input_columns: [item, price]
target_columns: [item]
target_column_types: {item: categorical}
seq_length: 8
inference_batch_size: 4
export_generative_model: true
export_embedding_model: false
model_spec:
  initial_embedding_dim: 8
  feature_embedding_dims: {item: 6, price: 2}
  dim_model: 8
  n_head: 2
  dim_feedforward: 16
  num_layers: 1
  prediction_length: 1
training_spec:
  device: cpu
  epochs: 2
  save_interval_epochs: 1
  batch_size: 4
  learning_rate: 0.001
  criterion: {item: CrossEntropyLoss}
  loss_weights: {item: 1.0}
  optimizer: {name: AdamW, weight_decay: 0.01}
  scheduler: {name: StepLR, step_size: 1, gamma: 0.9}
"""

INFER = """
project_root: .
model_path: models/m.onnx
model_type: generative
data_path: data/t-split2
input_columns: [item]
target_columns: [item]
output_probabilities: false
seq_length: 8
inference_batch_size: 4
autoregression: true
autoregression_extra_steps: 3
"""

SEARCH = """
project_root: .
metadata_config_path: configs/metadata_configs/t.json
hp_search_name: s
search_strategy: sample
n_samples: 2
model_config_write_path: configs/
input_columns: [[item]]
target_columns: [item]
target_column_types: {item: categorical}
seq_length: [8]
inference_batch_size: 4
export_generative_model: true
export_embedding_model: false
model_hyperparameter_sampling: {dim_model: [8], n_head: [2], dim_feedforward: [8], num_layers: [1]}
training_hyperparameter_sampling: {epochs: [1], batch_size: [4], learning_rate: [0.1], dropout: [0.0]}
"""

METADATA = """
n_classes: {item: 9}
id_maps: {item: {a: 2, b: 8}}
split_paths: [data/t-split0]
column_types: {item: Int64, price: Float64}
selected_columns_statistics: {price: {std: 1.5, mean: -0.5}}
seq_length: 8
split_ratios: [1.0]
fit_on: train
write_format: arrow
padding: "null"
seqjax_version: "1"
"""

ID_MAP = """
a: 2
b: 3
é: 7
"""
