/** Lengths of time are in milliseconds, moments in milliseconds since the Unix epoch. What isn't known is `null`. */

/** How much of a lock a tenure takes. */
export type Mode = 'exclusive' | 'shared' | 'intent-exclusive' | 'intent-shared';

/** What a record says of a holder. */
export interface Holder {
  /** The tenure's id. */
  id: string;
  /** The session that holds. */
  owner: string;
  mode: Mode;
  /** The fencing token. */
  token: number | null;
  /** What ends it: its process's death too, or its lease alone. */
  bound: 'process' | 'lease';
  pid: number;
  hostname: string;
  reason: string | null;
  acquiredAt: number;
  /** How long the lease lasts, from `acquiredAt`. */
  timeout: number;
  /** How long it lasts each time it is renewed. */
  ttl: number;
  /** How long it had queued. */
  waited: number | null;
  slot: number | null;
  slots: number | null;
  /** The priority that it asked with. */
  priority: number;
  /** Where it was granted, if this is a copy that a sync made. */
  from: string | null;
}

/** A holder, as it is at this moment. */
export interface HolderStatus extends Holder {
  /** How long the lease lasts from here on. */
  remaining: number;
  heldFor: number;
  /** Whether its process is there, as far as this one can tell. */
  process: 'alive' | 'dead' | 'unknown';
}

/** One who queues. */
export interface WaiterStatus {
  /** From 1. */
  position: number;
  id: string;
  owner: string;
  mode: Mode;
  priority: number;
  pid: number;
  hostname: string;
  reason: string | null;
  since: number;
  /** When it gives up. */
  until: number | null;
  waited: number;
}

/** A lock as it is. */
export interface LockStatus {
  name: string;
  held: boolean;
  holders: HolderStatus[];
  /** Holders of something below it. */
  intents: HolderStatus[];
  queue: WaiterStatus[];
  /** Why its record can't be read. */
  problem: string | null;
}

/** Every lock that is held, and what another tool has put under the prefix. */
export interface Listing {
  locks: LockStatus[];
  foreign: { ref: string; object: string }[];
}

/** One ended tenure. */
export interface LogEntry {
  commit: string;
  outcome: 'released' | 'expired' | 'owner died' | 'broken' | 'cancelled';
  /** The tenure's id; empty if its record couldn't be read. */
  id: string;
  token: number | null;
  owner: string;
  hostname: string;
  pid: number | null;
  mode: string;
  acquiredAt: number | null;
  endedAt: number | null;
  waited: number | null;
  reason: string | null;
  endedBy: string;
  breakReason: string | null;
}

/** Who waits for whom, and which of them would wait for ever. */
export interface WaitGraph {
  edges: { lock: string; id: string; owner: string; blocker: string; blockedBy: string; holds: boolean }[];
  cycles: { victim: string; text: string }[];
}

/** What a clean-up did. */
export interface Cleaned {
  /** Locks in which something had ended by itself. */
  locks: string[];
  objectsDeleted: number;
  objectsWaiting: number;
}

/** Who keeps a lock that two took in two repositories, when they are synced. */
export type SyncStrategy = 'remote-wins' | 'oldest' | 'highest-priority' | 'highest-token' | 'fail';

/** What a sync has changed. */
export interface Synced {
  changes: SyncChange[];
  /** Locks that were left as they are, because a record of theirs can't be read. */
  left: { name: string; problem: string }[];
}

/** What became of one tenure in a sync. */
export interface SyncChange {
  name: string;
  /**
   * `sent`: held here, and now there too; `received`: the other way round; `ended-there`: it had ended here, and has
   * there now; `ended-here`: the other way round; `lost`: it was held here, and had been ended there; `overruled`: it
   * stood against `other`, which was kept.
   */
  fate: 'sent' | 'received' | 'ended-there' | 'ended-here' | 'lost' | 'overruled';
  holder: Holder;
  other: Holder | null;
}

/** Something that the doctor found. */
export interface Finding {
  severity: 'note' | 'problem';
  what: string;
  advice: string;
  fixed: boolean;
}

/** Who waits for what a lock holds. */
export interface Wanted {
  waiters: number;
  /** The highest among them. */
  priority: number | null;
}
