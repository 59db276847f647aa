'use strict';

const errors = require('./errors.js');
const { LockHandle } = require('./handle.js');
const { Lock } = require('./lock.js');
const { LockManager, Session } = require('./manager.js');
const { MultiLock, Repositories } = require('./multi.js');

const { fromJson, ...classes } = errors;
module.exports = { ...classes, Lock, LockHandle, LockManager, MultiLock, Repositories, Session };
