BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'digits-mlp');
INSERT INTO "studies" VALUES(2,'digits-cnn');
INSERT INTO "studies" VALUES(3,'digits-mlp/confirm');
INSERT INTO "studies" VALUES(4,'digits-mlp/test');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
INSERT INTO "study_directions" VALUES(2,'MAXIMIZE',2,0);
INSERT INTO "study_directions" VALUES(3,'MAXIMIZE',3,0);
INSERT INTO "study_directions" VALUES(4,'MAXIMIZE',4,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_system_attributes" VALUES(1,1,'study:metric_names','["val_accuracy"]');
INSERT INTO "study_system_attributes" VALUES(2,2,'study:metric_names','["val_accuracy"]');
INSERT INTO "study_system_attributes" VALUES(3,3,'study:metric_names','["val_accuracy"]');
INSERT INTO "study_system_attributes" VALUES(4,4,'study:metric_names','["val_accuracy"]');
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'spec','{"dataset": "digits", "model": "mlp", "depth": 1, "width": 4, "epochs": 1, "train_size": 512, "val_size": 397, "batch_size": 32, "weight_decay": 0.0, "warmup": 0.05, "slope_min": 0.001, "slope_clamp": "project", "precision": "float32", "objective": "val_accuracy", "sampler": "tpe", "pruner": "halving", "seed": 0, "split_seed": 0, "space": {"activation": ["leaky_relu"], "slope_mode": ["fixed", "learnable"], "negative_slope": {"low": 0.001, "high": 0.5, "log": true}, "slope_max": [0.1, 0.3, 1.0], "norm": ["none", "before"], "init": ["default"], "lr": {"low": 0.0001, "high": 0.03, "log": true}}}');
INSERT INTO "study_user_attributes" VALUES(2,1,'versions','{"python": "3.11.7", "slopesearch": "0.1.0", "optuna": "5.0.0", "torch": "2.14.1", "torchvision": "0.29.1"}');
INSERT INTO "study_user_attributes" VALUES(3,1,'data_sha256','"fedda465ad05dfd9f644535de182bafa33611a67ffe1065117c53d973c321119"');
INSERT INTO "study_user_attributes" VALUES(4,1,'fingerprint','"c373cd6e26e4af8e5a4d97bb5c805c4dab09bcdf8bb618ee3a2a4293a44ee67f"');
INSERT INTO "study_user_attributes" VALUES(5,2,'spec','{"dataset": "digits", "model": "cnn", "depth": null, "width": null, "epochs": 1, "train_size": 320, "val_size": 397, "batch_size": 32, "weight_decay": 0.0, "warmup": 0.05, "slope_min": 0.001, "slope_clamp": "project", "precision": "float32", "objective": "val_accuracy", "sampler": "tpe", "pruner": "halving", "seed": 0, "split_seed": 0, "space": {"activation": ["prelu", "relu"], "slope_mode": ["fixed", "learnable"], "negative_slope": {"low": 0.001, "high": 0.5, "log": true}, "slope_max": [0.1, 0.3, 1.0], "norm": ["before"], "init": ["default"], "lr": {"low": 0.0001, "high": 0.03, "log": true}}}');
INSERT INTO "study_user_attributes" VALUES(6,2,'versions','{"python": "3.11.7", "slopesearch": "0.1.0", "optuna": "5.0.0", "torch": "2.14.1", "torchvision": "0.29.1"}');
INSERT INTO "study_user_attributes" VALUES(7,2,'data_sha256','"fedda465ad05dfd9f644535de182bafa33611a67ffe1065117c53d973c321119"');
INSERT INTO "study_user_attributes" VALUES(8,2,'fingerprint','"05b57ee5526275ba78a8a2d651417aace406bcabf6843d52d93a8f0b69688c9a"');
INSERT INTO "study_user_attributes" VALUES(9,3,'spec','{"dataset": "digits", "model": "mlp", "depth": 1, "width": 4, "epochs": 1, "train_size": 512, "val_size": 397, "batch_size": 32, "weight_decay": 0.0, "warmup": 0.05, "slope_min": 0.001, "slope_clamp": "project", "precision": "float32", "objective": "val_accuracy", "sampler": "random", "pruner": "none", "seed": 0, "split_seed": 0, "space": {"activation": ["leaky_relu"], "slope_mode": ["fixed", "learnable"], "negative_slope": {"low": 0.001, "high": 0.5, "log": true}, "slope_max": [0.1, 0.3, 1.0], "norm": ["none", "before"], "init": ["default"], "lr": {"low": 0.0001, "high": 0.03, "log": true}}}');
INSERT INTO "study_user_attributes" VALUES(10,3,'versions','{"python": "3.11.7", "slopesearch": "0.1.0", "optuna": "5.0.0", "torch": "2.14.1", "torchvision": "0.29.1"}');
INSERT INTO "study_user_attributes" VALUES(11,3,'data_sha256','"fedda465ad05dfd9f644535de182bafa33611a67ffe1065117c53d973c321119"');
INSERT INTO "study_user_attributes" VALUES(12,3,'fingerprint','"7c163b233093d51d16e084db185a14ac8b212d3fbc01038fecf6364d1708e5e2"');
INSERT INTO "study_user_attributes" VALUES(13,3,'confirmed','[{"arm": {"roles": ["top 1", "best leaky_relu"], "config": {"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.18647912082801907, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 1.0, "slope_clamp": "project", "norm": "before", "init": "default", "init_seed": 3638038229, "lr": 0.0007553400740095643, "weight_decay": 0.0}, "trial": 4, "searched": 0.37279596977329976}, "runs": 2, "diverged": 0, "val_accuracy": {"mean": 0.23929471032745592, "sd": 0.13892778068652573, "low": -1.008921875845877, "high": 1.4875112965007886}, "val_loss": {"mean": 2.0704502903244055, "sd": 0.028229326399052616, "low": 1.8168198554777941, "high": 2.324080725171017}, "shrinkage": 0.13350125944584385, "difference": null}, {"arm": {"roles": ["the tutorial''s recipe"], "config": {"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "default", "init_seed": 3638038229, "lr": 0.001, "weight_decay": 0.0}, "trial": 0, "searched": 0.1385390428211587}, "runs": 2, "diverged": 0, "val_accuracy": {"mean": 0.24559193954659952, "sd": 0.08015064270376485, "low": -0.47453301401493864, "high": 0.9657168931081377}, "val_loss": {"mean": 2.129646781709993, "sd": 0.07275202567114311, "low": 1.4759957648170383, "high": 2.7832977986029475}, "shrinkage": -0.10705289672544083, "difference": {"val_accuracy": {"mean": -0.00629722921914358, "sd": 0.05877713798276087, "low": -0.534388861830938, "high": 0.5217944033926509}, "val_loss": {"mean": -0.059196491385587136, "sd": 0.0445226992720905, "low": -0.4592170734319303, "high": 0.34082409066075603}}}, {"arm": {"roles": ["ReLU with He init"], "config": {"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "relu", "negative_slope": null, "slope_mode": null, "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "kaiming_normal", "init_seed": 3638038229, "lr": 0.001, "weight_decay": 0.0}, "trial": null, "searched": null}, "runs": 2, "diverged": 0, "val_accuracy": {"mean": 0.14357682619647355, "sd": 0.014249003147335985, "low": 0.015554612229977755, "high": 0.2715990401629693}, "val_loss": {"mean": 2.1753082275390625, "sd": 0.1651523626165838, "low": 0.6914731209459708, "high": 3.659143334132154}, "shrinkage": null, "difference": {"val_accuracy": {"mean": 0.09571788413098238, "sd": 0.12467877753918974, "low": -1.0244764880758543, "high": 1.2159122563378193}, "val_loss": {"mean": -0.10485793721465675, "sd": 0.13692303621753119, "low": -1.3350626089611368, "high": 1.1253467345318233}}}]');
INSERT INTO "study_user_attributes" VALUES(14,3,'openings','[{"opened": "2026-11-24 23:47:45", "arms": [{"roles": ["top 1", "best leaky_relu"], "config": {"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.18647912082801907, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 1.0, "slope_clamp": "project", "norm": "before", "init": "default", "init_seed": 3638038229, "lr": 0.0007553400740095643, "weight_decay": 0.0}, "trial": 4, "searched": 0.37279596977329976}, {"roles": ["the tutorial''s recipe"], "config": {"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "default", "init_seed": 3638038229, "lr": 0.001, "weight_decay": 0.0}, "trial": 0, "searched": 0.1385390428211587}, {"roles": ["ReLU with He init"], "config": {"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "relu", "negative_slope": null, "slope_mode": null, "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "kaiming_normal", "init_seed": 3638038229, "lr": 0.001, "weight_decay": 0.0}, "trial": null, "searched": null}], "seeds": 2, "tested": [{"arm": {"roles": ["top 1", "best leaky_relu"], "config": {"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.18647912082801907, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 1.0, "slope_clamp": "project", "norm": "before", "init": "default", "init_seed": 3638038229, "lr": 0.0007553400740095643, "weight_decay": 0.0}, "trial": 4, "searched": 0.37279596977329976}, "runs": 2, "accuracy": {"mean": 0.26875, "sd": 0.1467246570962086, "low": -1.0495187413781244, "high": 1.5870187413781245}, "loss": {"mean": 2.0730048751831056, "sd": 0.03476628121754746, "low": 1.7606422315069152, "high": 2.385367518859296}}, {"arm": {"roles": ["the tutorial''s recipe"], "config": {"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "default", "init_seed": 3638038229, "lr": 0.001, "weight_decay": 0.0}, "trial": 0, "searched": 0.1385390428211587}, "runs": 2, "accuracy": {"mean": 0.25375000000000003, "sd": 0.08662058069535207, "low": -0.5245050400906999, "high": 1.0320050400907}, "loss": {"mean": 2.1208111190795895, "sd": 0.07921142097997581, "low": 1.4091247379038943, "high": 2.832497500255285}}, {"arm": {"roles": ["ReLU with He init"], "config": {"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "relu", "negative_slope": null, "slope_mode": null, "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "kaiming_normal", "init_seed": 3638038229, "lr": 0.001, "weight_decay": 0.0}, "trial": null, "searched": null}, "runs": 2, "accuracy": {"mean": 0.15125, "sd": 0.03712310601229374, "low": -0.18228787432458565, "high": 0.48478787432458564}, "loss": {"mean": 2.169088020324707, "sd": 0.18253170247564068, "low": 0.5291057402748809, "high": 3.8090703003745334}}]}]');
INSERT INTO "study_user_attributes" VALUES(15,4,'spec','{"dataset": "digits", "model": "mlp", "depth": 1, "width": 4, "epochs": 1, "train_size": 512, "val_size": 397, "batch_size": 32, "weight_decay": 0.0, "warmup": 0.05, "slope_min": 0.001, "slope_clamp": "project", "precision": "float32", "objective": "val_accuracy", "sampler": "random", "pruner": "none", "seed": 0, "split_seed": 0, "space": {"activation": ["leaky_relu"], "slope_mode": ["fixed", "learnable"], "negative_slope": {"low": 0.001, "high": 0.5, "log": true}, "slope_max": [0.1, 0.3, 1.0], "norm": ["none", "before"], "init": ["default"], "lr": {"low": 0.0001, "high": 0.03, "log": true}}}');
INSERT INTO "study_user_attributes" VALUES(16,4,'versions','{"python": "3.11.7", "slopesearch": "0.1.0", "optuna": "5.0.0", "torch": "2.14.1", "torchvision": "0.29.1"}');
INSERT INTO "study_user_attributes" VALUES(17,4,'data_sha256','"fedda465ad05dfd9f644535de182bafa33611a67ffe1065117c53d973c321119"');
INSERT INTO "study_user_attributes" VALUES(18,4,'fingerprint','"7c163b233093d51d16e084db185a14ac8b212d3fbc01038fecf6364d1708e5e2"');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,1,1.03274559193954659774e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,1,2,1.28463476070528964667e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(3,1,3,1.30982367758186390993e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(4,1,4,1.46095717884130976704e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(5,1,5,1.41057934508816124052e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(6,1,6,1.36020151133501271401e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(7,1,7,1.33501259445843817319e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(8,1,8,1.38539042821158697726e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(9,1,9,1.38539042821158697726e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(10,2,1,1.51133501259445857112e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(11,2,2,1.9647355163727958649e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(12,2,3,2.24181360201511331586e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(13,2,4,2.61964735516372781987e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(14,2,5,2.87153652392947100757e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(15,2,6,2.89672544080604554839e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(16,2,7,2.94710327455919407491e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(17,2,8,2.92191435768261953409e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(18,2,9,2.92191435768261953409e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(19,3,1,1.03274559193954659774e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(20,3,2,1.28463476070528964667e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(21,3,3,1.30982367758186390993e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(22,3,4,1.46095717884130976704e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(23,3,5,1.41057934508816124052e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(24,3,6,1.36020151133501271401e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(25,3,7,1.33501259445843817319e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(26,3,8,1.38539042821158697726e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(27,3,9,1.38539042821158697726e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(28,4,1,1.20906801007556671812e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(29,5,1,0.181360201511335,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(30,5,2,2.24181360201511331586e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(31,5,3,2.44332493702770769949e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(32,5,4,3.14861460957178818098e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(33,5,5,3.35012594458438284217e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(34,5,6,3.50125944584382897684e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(35,5,7,3.65239294710327455639e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(36,5,8,3.75314861460957160943e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(37,5,9,3.72795969773299762373e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(38,6,1,1.08312342569269526304e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(39,7,1,3.65239294710327455639e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(40,7,2,4.76070528967254380514e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(41,7,3,6.82619647355163783331e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(42,7,4,7.7833753148614615025e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(43,7,5,8.41309823677581891665e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(44,7,6,8.58942065491183903702e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(45,7,7,8.69017632241813609006e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(46,7,8,8.7909319899244331431e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(47,7,9,8.94206549118387927777e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(48,8,1,4.45843828715365264603e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(49,8,2,5.86901763224181305389e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(50,8,3,7.27959697732997512709e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(51,8,4,8.46347607052896688806e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(52,8,5,8.91687657430730529206e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(53,8,6,9.0428211586901763308e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(54,8,7,9.11838790931989939814e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(55,8,8,9.11838790931989939814e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(56,8,9,9.11838790931989939814e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(57,9,1,0.0906801007556675,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(58,9,2,1.057934508816120861e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(59,9,3,1.057934508816120861e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(60,9,4,1.057934508816120861e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(61,9,5,1.18387909319899245486e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(62,9,6,1.28463476070528964667e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(63,9,7,1.33501259445843817319e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(64,9,8,1.38539042821158697726e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(65,9,9,1.41057934508816124052e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(66,10,1,1.4861460957178840303e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(67,10,2,1.76322418136020148127e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(68,10,3,1.76322418136020148127e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(69,10,4,1.86397984886649881186e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(70,10,5,1.88916876574307307512e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(71,10,6,1.88916876574307307512e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(72,10,7,1.88916876574307307512e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(73,10,8,1.88916876574307307512e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(74,10,9,1.88916876574307307512e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(75,11,1,1.03274559193954659774e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(76,11,2,1.68765743073047869149e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(77,11,3,1.23425692695214112015e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(78,11,4,1.33501259445843817319e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(79,11,5,1.43576826196473550378e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(80,11,6,1.41057934508816124052e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(81,11,7,1.33501259445843817319e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(82,11,8,1.33501259445843817319e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(83,11,9,1.33501259445843817319e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(84,12,1,1.30982367758186390993e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(85,12,2,0.181360201511335,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(86,12,3,2.06549118387909319549e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(87,12,4,2.59445843828715383416e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(88,12,5,2.94710327455919407491e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(89,12,6,3.09823677581863965446e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(90,12,7,3.14861460957178818098e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(91,12,8,3.32493702770780830135e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(92,12,9,3.37531486146095738298e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(93,13,1,1.33501259445843817319e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(94,13,2,1.71284634760705295475e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(95,13,3,2.01511335012594466897e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(96,13,4,2.92191435768261953409e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(97,13,5,2.67002518891687634638e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(98,13,6,2.72040302267002542802e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(99,13,7,2.74559193954659941372e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(100,13,8,2.92191435768261953409e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(101,13,9,3.02267002518891714224e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(102,14,1,1.4861460957178840303e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(103,14,2,1.73803526448362721801e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(104,14,3,0.163727959697733,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(105,14,4,1.76322418136020148127e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(106,14,5,1.46095717884130976704e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(107,14,6,1.43576826196473550378e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(108,14,7,1.46095717884130976704e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(109,14,8,1.4861460957178840303e-01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(110,14,9,1.53652392947103283438e-01,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'slope_mode',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["fixed", "learnable"]}}');
INSERT INTO "trial_params" VALUES(2,1,'negative_slope',0.01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(3,1,'norm',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["none", "before"]}}');
INSERT INTO "trial_params" VALUES(4,1,'lr',0.001,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
INSERT INTO "trial_params" VALUES(5,2,'slope_mode',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["fixed", "learnable"]}}');
INSERT INTO "trial_params" VALUES(6,2,'negative_slope',0.01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(7,2,'norm',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["none", "before"]}}');
INSERT INTO "trial_params" VALUES(8,2,'lr',0.001,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
INSERT INTO "trial_params" VALUES(9,3,'slope_mode',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["fixed", "learnable"]}}');
INSERT INTO "trial_params" VALUES(10,3,'negative_slope',0.01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(11,3,'slope_max',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.1, 0.3, 1.0]}}');
INSERT INTO "trial_params" VALUES(12,3,'norm',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["none", "before"]}}');
INSERT INTO "trial_params" VALUES(13,3,'lr',0.001,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
INSERT INTO "trial_params" VALUES(14,4,'slope_mode',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["fixed", "learnable"]}}');
INSERT INTO "trial_params" VALUES(15,4,'negative_slope',2.46095959935228952852e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(16,4,'norm',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["none", "before"]}}');
INSERT INTO "trial_params" VALUES(17,4,'lr',1.05630322456613104441e-04,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
INSERT INTO "trial_params" VALUES(18,5,'slope_mode',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["fixed", "learnable"]}}');
INSERT INTO "trial_params" VALUES(19,5,'negative_slope',1.8647912082801906819e-01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(20,5,'slope_max',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.1, 0.3, 1.0]}}');
INSERT INTO "trial_params" VALUES(21,5,'norm',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["none", "before"]}}');
INSERT INTO "trial_params" VALUES(22,5,'lr',7.55340074009564280133e-04,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
INSERT INTO "trial_params" VALUES(23,6,'slope_mode',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["fixed", "learnable"]}}');
INSERT INTO "trial_params" VALUES(24,6,'negative_slope',2.68107782354063718666e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.5, "log": true}}');
INSERT INTO "trial_params" VALUES(25,6,'slope_max',2.0,'{"name": "CategoricalDistribution", "attributes": {"choices": [0.1, 0.3, 1.0]}}');
INSERT INTO "trial_params" VALUES(26,6,'norm',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["none", "before"]}}');
INSERT INTO "trial_params" VALUES(27,6,'lr',4.39300019027015259311e-04,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
INSERT INTO "trial_params" VALUES(28,7,'activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["prelu", "relu"]}}');
INSERT INTO "trial_params" VALUES(29,7,'lr',8.96256986396949499595e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
INSERT INTO "trial_params" VALUES(30,8,'activation',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["prelu", "relu"]}}');
INSERT INTO "trial_params" VALUES(31,8,'lr',2.68848145898176963536e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "default", "init_seed": 3638038229, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(2,1,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(3,1,'val_accuracy','0.1385390428211587');
INSERT INTO "trial_user_attributes" VALUES(4,1,'val_loss','2.235600930317223');
INSERT INTO "trial_user_attributes" VALUES(5,1,'train_loss','2.2550597190856934');
INSERT INTO "trial_user_attributes" VALUES(6,1,'seconds','0.051');
INSERT INTO "trial_user_attributes" VALUES(7,1,'images_per_second','14514.0');
INSERT INTO "trial_user_attributes" VALUES(8,1,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(9,1,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(10,1,'curves','[{"step": 1, "train_loss": 2.420881748199463, "val_loss": 2.3022108102024954, "val_accuracy": 0.10327455919395466, "slopes": [], "raw_slopes": [], "update_ratios": [0.03834], "diverged": false}, {"step": 2, "train_loss": 2.2734994888305664, "val_loss": 2.2805108903937734, "val_accuracy": 0.12846347607052896, "slopes": [], "raw_slopes": [], "update_ratios": [0.02419], "diverged": false}, {"step": 3, "train_loss": 2.3635101318359375, "val_loss": 2.273663037970324, "val_accuracy": 0.1309823677581864, "slopes": [], "raw_slopes": [], "update_ratios": [0.0182], "diverged": false}, {"step": 4, "train_loss": 2.301298141479492, "val_loss": 2.2610631217283927, "val_accuracy": 0.14609571788413098, "slopes": [], "raw_slopes": [], "update_ratios": [0.01329], "diverged": false}, {"step": 5, "train_loss": 2.2346982955932617, "val_loss": 2.250762939453125, "val_accuracy": 0.14105793450881612, "slopes": [], "raw_slopes": [], "update_ratios": [0.009021], "diverged": false}, {"step": 6, "train_loss": 2.2573227882385254, "val_loss": 2.2437601161543608, "val_accuracy": 0.13602015113350127, "slopes": [], "raw_slopes": [], "update_ratios": [0.006182], "diverged": false}, {"step": 7, "train_loss": 2.27600359916687, "val_loss": 2.2408890808259208, "val_accuracy": 0.13350125944584382, "slopes": [], "raw_slopes": [], "update_ratios": [0.005321], "diverged": false}, {"step": 8, "train_loss": 2.25228214263916, "val_loss": 2.237179081145702, "val_accuracy": 0.1385390428211587, "slopes": [], "raw_slopes": [], "update_ratios": [0.002876], "diverged": false}, {"step": 9, "train_loss": 2.2550597190856934, "val_loss": 2.235600930317223, "val_accuracy": 0.1385390428211587, "slopes": [], "raw_slopes": [], "update_ratios": [0.0009095], "diverged": false}]');
INSERT INTO "trial_user_attributes" VALUES(11,1,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(12,1,'layers','{"images": 397, "layers": [1], "never_active": [0.5], "zero_gradient": [0.0], "inactive": [0.628], "saturated": [], "gradient_rms": [0.1305], "dead_fraction": 0.0, "grad_attenuation": null}');
INSERT INTO "trial_user_attributes" VALUES(13,2,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "before", "init": "default", "init_seed": 3638038229, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(14,2,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(15,2,'val_accuracy','0.29219143576826195');
INSERT INTO "trial_user_attributes" VALUES(16,2,'val_loss','2.13340317272119');
INSERT INTO "trial_user_attributes" VALUES(17,2,'train_loss','2.155935525894165');
INSERT INTO "trial_user_attributes" VALUES(18,2,'seconds','0.023');
INSERT INTO "trial_user_attributes" VALUES(19,2,'images_per_second','35520.5');
INSERT INTO "trial_user_attributes" VALUES(20,2,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(21,2,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(22,2,'curves','[{"step": 1, "train_loss": 2.366363525390625, "val_loss": 2.3400409996359413, "val_accuracy": 0.15113350125944586, "slopes": [], "raw_slopes": [], "update_ratios": [0.03839], "diverged": false}, {"step": 2, "train_loss": 2.2560510635375977, "val_loss": 2.276635542324268, "val_accuracy": 0.1964735516372796, "slopes": [], "raw_slopes": [], "update_ratios": [0.02647], "diverged": false}, {"step": 3, "train_loss": 2.2426164150238037, "val_loss": 2.243622441135666, "val_accuracy": 0.22418136020151133, "slopes": [], "raw_slopes": [], "update_ratios": [0.02271], "diverged": false}, {"step": 4, "train_loss": 2.143782138824463, "val_loss": 2.1963266521617206, "val_accuracy": 0.2619647355163728, "slopes": [], "raw_slopes": [], "update_ratios": [0.0162], "diverged": false}, {"step": 5, "train_loss": 2.137091636657715, "val_loss": 2.1682934508816123, "val_accuracy": 0.2871536523929471, "slopes": [], "raw_slopes": [], "update_ratios": [0.01212], "diverged": false}, {"step": 6, "train_loss": 2.1003410816192627, "val_loss": 2.153740102157785, "val_accuracy": 0.28967254408060455, "slopes": [], "raw_slopes": [], "update_ratios": [0.008224], "diverged": false}, {"step": 7, "train_loss": 2.1282198429107666, "val_loss": 2.147150534526527, "val_accuracy": 0.2947103274559194, "slopes": [], "raw_slopes": [], "update_ratios": [0.006628], "diverged": false}, {"step": 8, "train_loss": 2.087557554244995, "val_loss": 2.138255467643065, "val_accuracy": 0.29219143576826195, "slopes": [], "raw_slopes": [], "update_ratios": [0.003665], "diverged": false}, {"step": 9, "train_loss": 2.155935525894165, "val_loss": 2.13340317272119, "val_accuracy": 0.29219143576826195, "slopes": [], "raw_slopes": [], "update_ratios": [0.001286], "diverged": false}]');
INSERT INTO "trial_user_attributes" VALUES(23,2,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(24,2,'layers','{"images": 397, "layers": [1], "never_active": [0.0], "zero_gradient": [0.0], "inactive": [0.593], "saturated": [], "gradient_rms": [0.143], "dead_fraction": 0.0, "grad_attenuation": null}');
INSERT INTO "trial_user_attributes" VALUES(25,3,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 0.1, "slope_clamp": "project", "norm": "none", "init": "default", "init_seed": 3638038229, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(26,3,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(27,3,'val_accuracy','0.1385390428211587');
INSERT INTO "trial_user_attributes" VALUES(28,3,'val_loss','2.235160001279125');
INSERT INTO "trial_user_attributes" VALUES(29,3,'train_loss','2.254460573196411');
INSERT INTO "trial_user_attributes" VALUES(30,3,'seconds','0.025');
INSERT INTO "trial_user_attributes" VALUES(31,3,'images_per_second','32347.7');
INSERT INTO "trial_user_attributes" VALUES(32,3,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(33,3,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(34,3,'curves','[{"step": 1, "train_loss": 2.4208850860595703, "val_loss": 2.302213808150976, "val_accuracy": 0.10327455919395466, "slopes": [0.010375460609793663], "raw_slopes": [0.010375460609793663], "update_ratios": [0.03834], "diverged": false}, {"step": 2, "train_loss": 2.2734968662261963, "val_loss": 2.2804752993643733, "val_accuracy": 0.12846347607052896, "slopes": [0.011193153448402882], "raw_slopes": [0.011193153448402882], "update_ratios": [0.02419], "diverged": false}, {"step": 3, "train_loss": 2.363520383834839, "val_loss": 2.273606845653928, "val_accuracy": 0.1309823677581864, "slopes": [0.011301437392830849], "raw_slopes": [0.011301437392830849], "update_ratios": [0.01819], "diverged": false}, {"step": 4, "train_loss": 2.3012638092041016, "val_loss": 2.2609487384632794, "val_accuracy": 0.14609571788413098, "slopes": [0.011779493652284145], "raw_slopes": [0.011779493652284145], "update_ratios": [0.01328], "diverged": false}, {"step": 5, "train_loss": 2.234463691711426, "val_loss": 2.2505563884898456, "val_accuracy": 0.14105793450881612, "slopes": [0.01245272159576416], "raw_slopes": [0.01245272159576416], "update_ratios": [0.009035], "diverged": false}, {"step": 6, "train_loss": 2.2570438385009766, "val_loss": 2.243459398860595, "val_accuracy": 0.13602015113350127, "slopes": [0.013098730705678463], "raw_slopes": [0.013098730705678463], "update_ratios": [0.00621], "diverged": false}, {"step": 7, "train_loss": 2.275970458984375, "val_loss": 2.2405490058495356, "val_accuracy": 0.13350125944584382, "slopes": [0.013331974856555462], "raw_slopes": [0.013331974856555462], "update_ratios": [0.005346], "diverged": false}, {"step": 8, "train_loss": 2.252098560333252, "val_loss": 2.236780123386335, "val_accuracy": 0.1385390428211587, "slopes": [0.013643685728311539], "raw_slopes": [0.013643685728311539], "update_ratios": [0.002902], "diverged": false}, {"step": 9, "train_loss": 2.254460573196411, "val_loss": 2.235160001279125, "val_accuracy": 0.1385390428211587, "slopes": [0.013787606731057167], "raw_slopes": [0.013787606731057167], "update_ratios": [0.0009225], "diverged": false}]');
INSERT INTO "trial_user_attributes" VALUES(35,3,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(36,3,'layers','{"images": 397, "layers": [1], "never_active": [0.5], "zero_gradient": [0.0], "inactive": [0.628], "saturated": [], "gradient_rms": [0.1305], "dead_fraction": 0.0, "grad_attenuation": null}');
INSERT INTO "trial_user_attributes" VALUES(37,4,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.24609595993522895, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "default", "init_seed": 3638038229, "lr": 0.0001056303224566131, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(38,4,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(39,4,'val_accuracy','0.12090680100755667');
INSERT INTO "trial_user_attributes" VALUES(40,4,'val_loss','2.3971932745099966');
INSERT INTO "trial_user_attributes" VALUES(41,4,'train_loss','2.44400691986084');
INSERT INTO "trial_user_attributes" VALUES(42,4,'seconds','0.005');
INSERT INTO "trial_user_attributes" VALUES(43,4,'images_per_second','36750.9');
INSERT INTO "trial_user_attributes" VALUES(44,4,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(45,4,'ended','"pruned"');
INSERT INTO "trial_user_attributes" VALUES(46,4,'curves','[{"step": 1, "train_loss": 2.44400691986084, "val_loss": 2.3971932745099966, "val_accuracy": 0.12090680100755667, "slopes": [], "raw_slopes": [], "update_ratios": [0.004024], "diverged": false}]');
INSERT INTO "trial_user_attributes" VALUES(47,4,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(48,4,'layers','{"images": 128, "layers": [1], "never_active": [0.0], "zero_gradient": [0.0], "inactive": [0.332], "saturated": [], "gradient_rms": [0.2195], "dead_fraction": 0.0, "grad_attenuation": null}');
INSERT INTO "trial_user_attributes" VALUES(49,5,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.18647912082801907, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 1.0, "slope_clamp": "project", "norm": "before", "init": "default", "init_seed": 3638038229, "lr": 0.0007553400740095643, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(50,5,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(51,5,'val_accuracy','0.37279596977329976');
INSERT INTO "trial_user_attributes" VALUES(52,5,'val_loss','2.1093306457365792');
INSERT INTO "trial_user_attributes" VALUES(53,5,'train_loss','2.124197483062744');
INSERT INTO "trial_user_attributes" VALUES(54,5,'seconds','0.03');
INSERT INTO "trial_user_attributes" VALUES(55,5,'images_per_second','26783.1');
INSERT INTO "trial_user_attributes" VALUES(56,5,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(57,5,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(58,5,'curves','[{"step": 1, "train_loss": 2.3774971961975098, "val_loss": 2.343769217618467, "val_accuracy": 0.181360201511335, "slopes": [0.18552681803703308], "raw_slopes": [0.18552681803703308], "update_ratios": [0.02929], "diverged": false}, {"step": 2, "train_loss": 2.2617499828338623, "val_loss": 2.279419406535343, "val_accuracy": 0.22418136020151133, "slopes": [0.18629011511802673], "raw_slopes": [0.18629011511802673], "update_ratios": [0.02048], "diverged": false}, {"step": 3, "train_loss": 2.2605183124542236, "val_loss": 2.246711557998465, "val_accuracy": 0.24433249370277077, "slopes": [0.1867615431547165], "raw_slopes": [0.1867615431547165], "update_ratios": [0.01826], "diverged": false}, {"step": 4, "train_loss": 2.1366000175476074, "val_loss": 2.195656725981974, "val_accuracy": 0.3148614609571788, "slopes": [0.18767979741096497], "raw_slopes": [0.18767979741096497], "update_ratios": [0.01335], "diverged": false}, {"step": 5, "train_loss": 2.128910541534424, "val_loss": 2.1613450518783455, "val_accuracy": 0.3350125944584383, "slopes": [0.18847042322158813], "raw_slopes": [0.18847042322158813], "update_ratios": [0.009954], "diverged": false}, {"step": 6, "train_loss": 2.082660675048828, "val_loss": 2.1390447736687266, "val_accuracy": 0.3501259445843829, "slopes": [0.18909330666065216], "raw_slopes": [0.18909330666065216], "update_ratios": [0.006982], "diverged": false}, {"step": 7, "train_loss": 2.1039178371429443, "val_loss": 2.129331804943325, "val_accuracy": 0.36523929471032746, "slopes": [0.1893436461687088], "raw_slopes": [0.1893436461687088], "update_ratios": [0.005701], "diverged": false}, {"step": 8, "train_loss": 2.064004898071289, "val_loss": 2.116914686688248, "val_accuracy": 0.37531486146095716, "slopes": [0.18970181047916412], "raw_slopes": [0.18970181047916412], "update_ratios": [0.003171], "diverged": false}, {"step": 9, "train_loss": 2.124197483062744, "val_loss": 2.1093306457365792, "val_accuracy": 0.37279596977329976, "slopes": [0.18985699117183685], "raw_slopes": [0.18985699117183685], "update_ratios": [0.001081], "diverged": false}]');
INSERT INTO "trial_user_attributes" VALUES(59,5,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(60,5,'layers','{"images": 397, "layers": [1], "never_active": [0.0], "zero_gradient": [0.0], "inactive": [0.568], "saturated": [], "gradient_rms": [0.1512], "dead_fraction": 0.0, "grad_attenuation": null}');
INSERT INTO "trial_user_attributes" VALUES(61,6,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.026810778235406372, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 1.0, "slope_clamp": "project", "norm": "none", "init": "default", "init_seed": 3638038229, "lr": 0.00043930001902701526, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(62,6,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(63,6,'val_accuracy','0.10831234256926953');
INSERT INTO "trial_user_attributes" VALUES(64,6,'val_loss','2.3506755684725285');
INSERT INTO "trial_user_attributes" VALUES(65,6,'train_loss','2.436156749725342');
INSERT INTO "trial_user_attributes" VALUES(66,6,'seconds','0.005');
INSERT INTO "trial_user_attributes" VALUES(67,6,'images_per_second','35036.8');
INSERT INTO "trial_user_attributes" VALUES(68,6,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(69,6,'ended','"pruned"');
INSERT INTO "trial_user_attributes" VALUES(70,6,'curves','[{"step": 1, "train_loss": 2.436156749725342, "val_loss": 2.3506755684725285, "val_accuracy": 0.10831234256926953, "slopes": [0.027658220380544662], "raw_slopes": [0.027658220380544662], "update_ratios": [0.01589], "diverged": false}]');
INSERT INTO "trial_user_attributes" VALUES(71,6,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(72,6,'layers','{"images": 128, "layers": [1], "never_active": [0.0], "zero_gradient": [0.0], "inactive": [0.3945], "saturated": [], "gradient_rms": [0.2008], "dead_fraction": 0.0, "grad_attenuation": null}');
INSERT INTO "trial_user_attributes" VALUES(73,7,'config','{"dataset": "digits", "split_seed": 0, "train_size": 320, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "cnn", "depth": null, "width": null, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "prelu", "negative_slope": null, "slope_mode": null, "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "before", "init": "default", "init_seed": 3638038229, "lr": 0.008962569863969495, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(74,7,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(75,7,'val_accuracy','0.8942065491183879');
INSERT INTO "trial_user_attributes" VALUES(76,7,'val_loss','0.47371646679318524');
INSERT INTO "trial_user_attributes" VALUES(77,7,'train_loss','0.5610892176628113');
INSERT INTO "trial_user_attributes" VALUES(78,7,'seconds','13.8');
INSERT INTO "trial_user_attributes" VALUES(79,7,'images_per_second','26.1');
INSERT INTO "trial_user_attributes" VALUES(80,7,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(81,7,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(82,7,'curves','[{"step": 1, "train_loss": 2.50141978263855, "val_loss": 1.8068264209353353, "val_accuracy": 0.36523929471032746, "slopes": [0.25, 0.24972553551197052, 0.2492998242378235], "raw_slopes": [0.25, 0.24972553551197052, 0.2492998242378235], "update_ratios": [0.04615, 0.2632, 0.8701], "diverged": false}, {"step": 2, "train_loss": 1.3956257104873657, "val_loss": 1.715295825256809, "val_accuracy": 0.4760705289672544, "slopes": [0.25001147389411926, 0.2496057152748108, 0.2507359981536865], "raw_slopes": [0.25001147389411926, 0.2496057152748108, 0.2507359981536865], "update_ratios": [0.02962, 0.1575, 0.4033], "diverged": false}, {"step": 3, "train_loss": 1.2328532934188843, "val_loss": 1.0277786447058996, "val_accuracy": 0.6826196473551638, "slopes": [0.24875228106975555, 0.24941909313201904, 0.25230592489242554], "raw_slopes": [0.24875228106975555, 0.24941909313201904, 0.25230592489242554], "update_ratios": [0.01835, 0.09899, 0.2223], "diverged": false}, {"step": 4, "train_loss": 0.767293393611908, "val_loss": 0.7911299698298764, "val_accuracy": 0.7783375314861462, "slopes": [0.2477399706840515, 0.24931827187538147, 0.25437337160110474], "raw_slopes": [0.2477399706840515, 0.24931827187538147, 0.25437337160110474], "update_ratios": [0.01362, 0.06993, 0.1384], "diverged": false}, {"step": 5, "train_loss": 0.8670475482940674, "val_loss": 0.6206530900085603, "val_accuracy": 0.8413098236775819, "slopes": [0.246422678232193, 0.24911336600780487, 0.25807806849479675], "raw_slopes": [0.246422678232193, 0.24911336600780487, 0.25807806849479675], "update_ratios": [0.008174, 0.03521, 0.06169], "diverged": false}, {"step": 6, "train_loss": 0.844743013381958, "val_loss": 0.5448923183027984, "val_accuracy": 0.8589420654911839, "slopes": [0.24606338143348694, 0.24904392659664154, 0.25954553484916687], "raw_slopes": [0.24606338143348694, 0.24904392659664154, 0.25954553484916687], "update_ratios": [0.006539, 0.02481, 0.0421], "diverged": false}, {"step": 7, "train_loss": 0.7786083817481995, "val_loss": 0.5032500259822201, "val_accuracy": 0.8690176322418136, "slopes": [0.24580831825733185, 0.24894599616527557, 0.26059550046920776], "raw_slopes": [0.24580831825733185, 0.24894599616527557, 0.26059550046920776], "update_ratios": [0.004132, 0.01652, 0.02776], "diverged": false}, {"step": 8, "train_loss": 0.41866061091423035, "val_loss": 0.48259068256061083, "val_accuracy": 0.8790931989924433, "slopes": [0.24564175307750702, 0.24889817833900452, 0.2613745331764221], "raw_slopes": [0.24564175307750702, 0.24889817833900452, 0.2613745331764221], "update_ratios": [0.002611, 0.009885, 0.01634], "diverged": false}, {"step": 9, "train_loss": 0.5610892176628113, "val_loss": 0.47371646679318524, "val_accuracy": 0.8942065491183879, "slopes": [0.2455618977546692, 0.24888239800930023, 0.26177600026130676], "raw_slopes": [0.2455618977546692, 0.24888239800930023, 0.26177600026130676], "update_ratios": [0.001237, 0.004495, 0.007377], "diverged": false}]');
INSERT INTO "trial_user_attributes" VALUES(83,7,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(84,7,'layers','{"images": 397, "layers": [1, 2, 3], "never_active": [0.0, 0.0, 0.0], "zero_gradient": [0.0, 0.0, 0.0], "inactive": [0.5009, 0.4911, 0.5008], "saturated": [], "gradient_rms": [0.001128, 0.002757, 0.02007], "dead_fraction": 0.0, "grad_attenuation": 0.6252341936734651}');
INSERT INTO "trial_user_attributes" VALUES(85,7,'grad_attenuation','0.6252');
INSERT INTO "trial_user_attributes" VALUES(86,8,'config','{"dataset": "digits", "split_seed": 0, "train_size": 320, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "cnn", "depth": null, "width": null, "order_seed": 3505848740, "precision": "float32", "warmup": 0.05, "activation": "relu", "negative_slope": null, "slope_mode": null, "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "before", "init": "default", "init_seed": 3638038229, "lr": 0.0026884814589817696, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(87,8,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(88,8,'val_accuracy','0.9118387909319899');
INSERT INTO "trial_user_attributes" VALUES(89,8,'val_loss','1.2899982827136138');
INSERT INTO "trial_user_attributes" VALUES(90,8,'train_loss','0.715944766998291');
INSERT INTO "trial_user_attributes" VALUES(91,8,'seconds','0.658');
INSERT INTO "trial_user_attributes" VALUES(92,8,'images_per_second','1941.4');
INSERT INTO "trial_user_attributes" VALUES(93,8,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(94,8,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(95,8,'curves','[{"step": 1, "train_loss": 2.4361190795898438, "val_loss": 2.152530929603865, "val_accuracy": 0.44584382871536526, "slopes": [], "raw_slopes": [], "update_ratios": [0.01384, 0.07896, 0.2591], "diverged": false}, {"step": 2, "train_loss": 1.5555332899093628, "val_loss": 1.975468940638775, "val_accuracy": 0.5869017632241813, "slopes": [], "raw_slopes": [], "update_ratios": [0.008982, 0.04864, 0.1568], "diverged": false}, {"step": 3, "train_loss": 1.1506727933883667, "val_loss": 1.8156321643281643, "val_accuracy": 0.7279596977329975, "slopes": [], "raw_slopes": [], "update_ratios": [0.006335, 0.03359, 0.1072], "diverged": false}, {"step": 4, "train_loss": 0.99689120054245, "val_loss": 1.6759591282765272, "val_accuracy": 0.8463476070528967, "slopes": [], "raw_slopes": [], "update_ratios": [0.004493, 0.02457, 0.07738], "diverged": false}, {"step": 5, "train_loss": 0.9438846111297607, "val_loss": 1.477147983964204, "val_accuracy": 0.8916876574307305, "slopes": [], "raw_slopes": [], "update_ratios": [0.002591, 0.01434, 0.04131], "diverged": false}, {"step": 6, "train_loss": 0.9846926927566528, "val_loss": 1.401955092884131, "val_accuracy": 0.9042821158690176, "slopes": [], "raw_slopes": [], "update_ratios": [0.00188, 0.01044, 0.0298], "diverged": false}, {"step": 7, "train_loss": 0.8442873358726501, "val_loss": 1.3497496636148063, "val_accuracy": 0.9118387909319899, "slopes": [], "raw_slopes": [], "update_ratios": [0.001412, 0.007421, 0.02039], "diverged": false}, {"step": 8, "train_loss": 0.6409186720848083, "val_loss": 1.316221414945588, "val_accuracy": 0.9118387909319899, "slopes": [], "raw_slopes": [], "update_ratios": [0.0007951, 0.004673, 0.01251], "diverged": false}, {"step": 9, "train_loss": 0.715944766998291, "val_loss": 1.2899982827136138, "val_accuracy": 0.9118387909319899, "slopes": [], "raw_slopes": [], "update_ratios": [0.0003822, 0.002059, 0.0058], "diverged": false}]');
INSERT INTO "trial_user_attributes" VALUES(96,8,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(97,8,'layers','{"images": 397, "layers": [1, 2, 3], "never_active": [0.0, 0.0, 0.0], "zero_gradient": [0.0, 0.0, 0.0], "inactive": [0.4018, 0.3267, 0.5239], "saturated": [], "gradient_rms": [0.002386, 0.00499, 0.02822], "dead_fraction": 0.0, "grad_attenuation": 0.536510858528019}');
INSERT INTO "trial_user_attributes" VALUES(98,8,'grad_attenuation','0.5365');
INSERT INTO "trial_user_attributes" VALUES(99,9,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 1694268524, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.18647912082801907, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 1.0, "slope_clamp": "project", "norm": "before", "init": "default", "init_seed": 1345038360, "lr": 0.0007553400740095643, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(100,9,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(101,9,'val_accuracy','0.14105793450881612');
INSERT INTO "trial_user_attributes" VALUES(102,9,'val_loss','2.0904114384495043');
INSERT INTO "trial_user_attributes" VALUES(103,9,'train_loss','2.0959112644195557');
INSERT INTO "trial_user_attributes" VALUES(104,9,'seconds','0.039');
INSERT INTO "trial_user_attributes" VALUES(105,9,'images_per_second','19829.5');
INSERT INTO "trial_user_attributes" VALUES(106,9,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(107,9,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(109,9,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(111,10,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 1694268524, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "default", "init_seed": 1345038360, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(112,10,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(113,10,'val_accuracy','0.1889168765743073');
INSERT INTO "trial_user_attributes" VALUES(114,10,'val_loss','2.181090232407116');
INSERT INTO "trial_user_attributes" VALUES(115,10,'train_loss','2.203136444091797');
INSERT INTO "trial_user_attributes" VALUES(116,10,'seconds','0.024');
INSERT INTO "trial_user_attributes" VALUES(117,10,'images_per_second','35430.8');
INSERT INTO "trial_user_attributes" VALUES(118,10,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(119,10,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(121,10,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(123,11,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 1694268524, "precision": "float32", "warmup": 0.05, "activation": "relu", "negative_slope": null, "slope_mode": null, "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "kaiming_normal", "init_seed": 1345038360, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(124,11,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(125,11,'val_accuracy','0.13350125944584382');
INSERT INTO "trial_user_attributes" VALUES(126,11,'val_loss','2.2920885830742286');
INSERT INTO "trial_user_attributes" VALUES(127,11,'train_loss','2.303295612335205');
INSERT INTO "trial_user_attributes" VALUES(128,11,'seconds','0.021');
INSERT INTO "trial_user_attributes" VALUES(129,11,'images_per_second','41624.9');
INSERT INTO "trial_user_attributes" VALUES(130,11,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(131,11,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(133,11,'dead_fraction','0.5');
INSERT INTO "trial_user_attributes" VALUES(135,12,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 298056687, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.18647912082801907, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 1.0, "slope_clamp": "project", "norm": "before", "init": "default", "init_seed": 4185938297, "lr": 0.0007553400740095643, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(136,12,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(137,12,'val_accuracy','0.33753148614609574');
INSERT INTO "trial_user_attributes" VALUES(138,12,'val_loss','2.0504891421993072');
INSERT INTO "trial_user_attributes" VALUES(139,12,'train_loss','2.052945137023926');
INSERT INTO "trial_user_attributes" VALUES(140,12,'seconds','0.031');
INSERT INTO "trial_user_attributes" VALUES(141,12,'images_per_second','26380.7');
INSERT INTO "trial_user_attributes" VALUES(142,12,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(143,12,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(145,12,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(147,13,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 298056687, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "default", "init_seed": 4185938297, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(148,13,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(149,13,'val_accuracy','0.3022670025188917');
INSERT INTO "trial_user_attributes" VALUES(150,13,'val_loss','2.07820333101287');
INSERT INTO "trial_user_attributes" VALUES(151,13,'train_loss','2.0977931022644043');
INSERT INTO "trial_user_attributes" VALUES(152,13,'seconds','0.024');
INSERT INTO "trial_user_attributes" VALUES(153,13,'images_per_second','34743.8');
INSERT INTO "trial_user_attributes" VALUES(154,13,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(155,13,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(157,13,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(159,14,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "validation", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 298056687, "precision": "float32", "warmup": 0.05, "activation": "relu", "negative_slope": null, "slope_mode": null, "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "kaiming_normal", "init_seed": 4185938297, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(160,14,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(161,14,'val_accuracy','0.15365239294710328');
INSERT INTO "trial_user_attributes" VALUES(162,14,'val_loss','2.0585278720038964');
INSERT INTO "trial_user_attributes" VALUES(163,14,'train_loss','2.074587345123291');
INSERT INTO "trial_user_attributes" VALUES(164,14,'seconds','0.029');
INSERT INTO "trial_user_attributes" VALUES(165,14,'images_per_second','27499.9');
INSERT INTO "trial_user_attributes" VALUES(166,14,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(167,14,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(169,14,'dead_fraction','0.25');
INSERT INTO "trial_user_attributes" VALUES(171,15,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "test", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 1694268524, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.18647912082801907, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 1.0, "slope_clamp": "project", "norm": "before", "init": "default", "init_seed": 1345038360, "lr": 0.0007553400740095643, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(172,15,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(173,15,'val_accuracy','0.165');
INSERT INTO "trial_user_attributes" VALUES(174,15,'val_loss','2.0975883483886717');
INSERT INTO "trial_user_attributes" VALUES(175,15,'train_loss','2.0959112644195557');
INSERT INTO "trial_user_attributes" VALUES(176,15,'seconds','0.032');
INSERT INTO "trial_user_attributes" VALUES(177,15,'images_per_second','24468.6');
INSERT INTO "trial_user_attributes" VALUES(178,15,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(179,15,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(181,15,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(183,16,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "test", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 1694268524, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "default", "init_seed": 1345038360, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(184,16,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(185,16,'val_accuracy','0.1925');
INSERT INTO "trial_user_attributes" VALUES(186,16,'val_loss','2.176822052001953');
INSERT INTO "trial_user_attributes" VALUES(187,16,'train_loss','2.203136444091797');
INSERT INTO "trial_user_attributes" VALUES(188,16,'seconds','0.019');
INSERT INTO "trial_user_attributes" VALUES(189,16,'images_per_second','46379.2');
INSERT INTO "trial_user_attributes" VALUES(190,16,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(191,16,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(193,16,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(195,17,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "test", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 1694268524, "precision": "float32", "warmup": 0.05, "activation": "relu", "negative_slope": null, "slope_mode": null, "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "kaiming_normal", "init_seed": 1345038360, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(196,17,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(197,17,'val_accuracy','0.125');
INSERT INTO "trial_user_attributes" VALUES(198,17,'val_loss','2.298157424926758');
INSERT INTO "trial_user_attributes" VALUES(199,17,'train_loss','2.303295612335205');
INSERT INTO "trial_user_attributes" VALUES(200,17,'seconds','0.021');
INSERT INTO "trial_user_attributes" VALUES(201,17,'images_per_second','40894.8');
INSERT INTO "trial_user_attributes" VALUES(202,17,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(203,17,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(205,17,'dead_fraction','0.25');
INSERT INTO "trial_user_attributes" VALUES(207,18,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "test", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 298056687, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.18647912082801907, "slope_mode": "learnable", "slope_min": 0.001, "slope_max": 1.0, "slope_clamp": "project", "norm": "before", "init": "default", "init_seed": 4185938297, "lr": 0.0007553400740095643, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(208,18,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(209,18,'val_accuracy','0.3725');
INSERT INTO "trial_user_attributes" VALUES(210,18,'val_loss','2.048421401977539');
INSERT INTO "trial_user_attributes" VALUES(211,18,'train_loss','2.052945137023926');
INSERT INTO "trial_user_attributes" VALUES(212,18,'seconds','0.024');
INSERT INTO "trial_user_attributes" VALUES(213,18,'images_per_second','33670.2');
INSERT INTO "trial_user_attributes" VALUES(214,18,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(215,18,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(217,18,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(219,19,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "test", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 298056687, "precision": "float32", "warmup": 0.05, "activation": "leaky_relu", "negative_slope": 0.01, "slope_mode": "fixed", "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "default", "init_seed": 4185938297, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(220,19,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(221,19,'val_accuracy','0.315');
INSERT INTO "trial_user_attributes" VALUES(222,19,'val_loss','2.0648001861572265');
INSERT INTO "trial_user_attributes" VALUES(223,19,'train_loss','2.0977931022644043');
INSERT INTO "trial_user_attributes" VALUES(224,19,'seconds','0.02');
INSERT INTO "trial_user_attributes" VALUES(225,19,'images_per_second','45087.2');
INSERT INTO "trial_user_attributes" VALUES(226,19,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(227,19,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(229,19,'dead_fraction','0.0');
INSERT INTO "trial_user_attributes" VALUES(231,20,'config','{"dataset": "digits", "split_seed": 0, "train_size": 512, "val_size": 397, "evaluated_on": "test", "batch_size": 32, "epochs": 1, "model": "mlp", "depth": 1, "width": 4, "order_seed": 298056687, "precision": "float32", "warmup": 0.05, "activation": "relu", "negative_slope": null, "slope_mode": null, "slope_min": null, "slope_max": null, "slope_clamp": null, "norm": "none", "init": "kaiming_normal", "init_seed": 4185938297, "lr": 0.001, "weight_decay": 0.0}');
INSERT INTO "trial_user_attributes" VALUES(232,20,'seed','0');
INSERT INTO "trial_user_attributes" VALUES(233,20,'val_accuracy','0.1775');
INSERT INTO "trial_user_attributes" VALUES(234,20,'val_loss','2.0400186157226563');
INSERT INTO "trial_user_attributes" VALUES(235,20,'train_loss','2.074587345123291');
INSERT INTO "trial_user_attributes" VALUES(236,20,'seconds','0.019');
INSERT INTO "trial_user_attributes" VALUES(237,20,'images_per_second','45444.0');
INSERT INTO "trial_user_attributes" VALUES(238,20,'device','"cpu"');
INSERT INTO "trial_user_attributes" VALUES(239,20,'ended','"completed"');
INSERT INTO "trial_user_attributes" VALUES(241,20,'dead_fraction','0.25');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,1.38539042821158697726e-01,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,2.92191435768261953409e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,1.38539042821158697726e-01,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,1.20906801007556671812e-01,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,3.72795969773299762373e-01,'FINITE');
INSERT INTO "trial_values" VALUES(6,6,0,1.08312342569269526304e-01,'FINITE');
INSERT INTO "trial_values" VALUES(7,7,0,8.94206549118387927777e-01,'FINITE');
INSERT INTO "trial_values" VALUES(8,8,0,9.11838790931989939814e-01,'FINITE');
INSERT INTO "trial_values" VALUES(9,9,0,1.41057934508816124052e-01,'FINITE');
INSERT INTO "trial_values" VALUES(10,10,0,1.88916876574307307512e-01,'FINITE');
INSERT INTO "trial_values" VALUES(11,11,0,1.33501259445843817319e-01,'FINITE');
INSERT INTO "trial_values" VALUES(12,12,0,3.37531486146095738298e-01,'FINITE');
INSERT INTO "trial_values" VALUES(13,13,0,3.02267002518891714224e-01,'FINITE');
INSERT INTO "trial_values" VALUES(14,14,0,1.53652392947103283438e-01,'FINITE');
INSERT INTO "trial_values" VALUES(15,15,0,0.165,'FINITE');
INSERT INTO "trial_values" VALUES(16,16,0,0.1925,'FINITE');
INSERT INTO "trial_values" VALUES(17,17,0,0.125,'FINITE');
INSERT INTO "trial_values" VALUES(18,18,0,0.3725,'FINITE');
INSERT INTO "trial_values" VALUES(19,19,0,0.315,'FINITE');
INSERT INTO "trial_values" VALUES(20,20,0,0.1775,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-24 23:46:54.949192','2026-11-24 23:46:56.359004');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-24 23:46:56.366110','2026-11-24 23:46:56.436276');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-24 23:46:56.442762','2026-11-24 23:46:56.517421');
INSERT INTO "trials" VALUES(4,3,1,'PRUNED','2026-11-24 23:46:56.524213','2026-11-24 23:46:56.560401');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-24 23:46:56.566728','2026-11-24 23:46:56.662179');
INSERT INTO "trials" VALUES(6,5,1,'PRUNED','2026-11-24 23:46:56.669200','2026-11-24 23:46:56.708135');
INSERT INTO "trials" VALUES(7,0,2,'COMPLETE','2026-11-24 23:47:19.567593','2026-11-24 23:47:34.835615');
INSERT INTO "trials" VALUES(8,1,2,'COMPLETE','2026-11-24 23:47:34.847417','2026-11-24 23:47:35.600396');
INSERT INTO "trials" VALUES(9,0,3,'COMPLETE','2026-11-24 23:47:43.494064','2026-11-24 23:47:45.099395');
INSERT INTO "trials" VALUES(10,1,3,'COMPLETE','2026-11-24 23:47:45.106796','2026-11-24 23:47:45.177393');
INSERT INTO "trials" VALUES(11,2,3,'COMPLETE','2026-11-24 23:47:45.185074','2026-11-24 23:47:45.248844');
INSERT INTO "trials" VALUES(12,3,3,'COMPLETE','2026-11-24 23:47:45.255436','2026-11-24 23:47:45.339751');
INSERT INTO "trials" VALUES(13,4,3,'COMPLETE','2026-11-24 23:47:45.346171','2026-11-24 23:47:45.418215');
INSERT INTO "trials" VALUES(14,5,3,'COMPLETE','2026-11-24 23:47:45.424274','2026-11-24 23:47:45.507714');
INSERT INTO "trials" VALUES(15,0,4,'COMPLETE','2026-11-24 23:47:45.750199','2026-11-24 23:47:45.915773');
INSERT INTO "trials" VALUES(16,1,4,'COMPLETE','2026-11-24 23:47:45.922226','2026-11-24 23:47:45.978612');
INSERT INTO "trials" VALUES(17,2,4,'COMPLETE','2026-11-24 23:47:45.984589','2026-11-24 23:47:46.046270');
INSERT INTO "trials" VALUES(18,3,4,'COMPLETE','2026-11-24 23:47:46.052728','2026-11-24 23:47:46.115591');
INSERT INTO "trials" VALUES(19,4,4,'COMPLETE','2026-11-24 23:47:46.121202','2026-11-24 23:47:46.178895');
INSERT INTO "trials" VALUES(20,5,4,'COMPLETE','2026-11-24 23:47:46.184555','2026-11-24 23:47:46.242859');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
